"""Sound files with random damage: an error of ours or the right size, and never a crash."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import cloop, cowfile
from support.kinds import KINDS
from support.programs import cowcloop, mannered

UNIT = cowfile.UNIT
#: Where the numbers are that everything else depends on.
HEAD = 136 + 8 * 20


@functools.lru_cache(None)
def _image(number: int) -> bytes:
    return KINDS[number].make()[0]


@functools.lru_cache(None)
def _base() -> bytes:
    return cloop.sample(64 * UNIT, 4096)


edit = st.tuples(
    st.sampled_from(["front", "back", "anywhere", "cut", "repeat"]),
    st.integers(0, 1 << 24),
    st.binary(min_size=1, max_size=9),
)


def _damaged(data: bytes, edits: list[tuple[str, int, bytes]], head: int) -> bytes:
    out = bytearray(data)
    for kind, where, what in edits:
        if not out:
            break
        if kind == "front":
            at = where % min(head, len(out))
        elif kind == "back":
            at = len(out) - 1 - where % min(head, len(out))
        else:
            at = where % len(out)
        if kind == "cut":
            del out[at:]
        elif kind == "repeat":
            out[at:at] = out[at : at + 64]
        else:
            out[at : at + len(what)] = what
    return bytes(out)


def _is_clear(error: Exception, name: str) -> None:
    """One line that names the file."""
    assert "\n" not in str(error)
    assert name in str(error)


edits = st.lists(edit, min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(KINDS) - 1), edits)
def test_images(number: int, changes: list[tuple[str, int, bytes]]) -> None:
    cowcloop_module = pytest.importorskip("cowcloop")
    with tempfile.TemporaryDirectory(prefix="cct-") as name:
        path = Path(name) / "i.img"
        path.write_bytes(_damaged(_image(number), changes, HEAD))
        try:
            disk = cowcloop_module.open(path)
        except cowcloop_module.CowcloopError as error:
            _is_clear(error, "i.img")
            return
        with disk:
            if disk.size > 64 << 20:  # a header that claims much, and a sparse index
                return
            for at in range(0, disk.size, 10_000):
                length = min(10_000, disk.size - at)
                try:
                    assert len(disk.pread(length, at)) == length
                except cowcloop_module.CowcloopError as error:
                    _is_clear(error, "i.img")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*cowfile.LAYOUTS, "packed"]), edits)
def test_cowfiles(layout: str, changes: list[tuple[str, int, bytes]]) -> None:
    cowcloop_module = pytest.importorskip("cowcloop")
    blocks = {number: bytes([number]) * UNIT for number in (0, 9, 40, 63)}
    if layout == "packed":
        data = cowfile.build(_base(), blocks, packed=True)
    else:
        data = cowfile.build(_base(), blocks, layout)
    with tempfile.TemporaryDirectory(prefix="cct-") as name:
        image, cow = Path(name) / "i", Path(name) / "c.cow"
        image.write_bytes(_base())
        cow.write_bytes(_damaged(data, changes, 64))
        try:
            disk = cowcloop_module.open(image, cow)
        except cowcloop_module.CowcloopError as error:
            _is_clear(error, "c.cow")
            return
        with disk:
            assert disk.size == 64 * UNIT
            disk.pwrite(b"written", 5)
            disk.trim(20 * UNIT, 3 * UNIT)
            assert disk.pread(7, 5) == b"written"
            assert disk.pread(3 * UNIT, 20 * UNIT) == b"\0" * (3 * UNIT)
        assert cowfile.original_refuses(cow, _base()) is None


#: What is run on a damaged image I or cowfile C, over a sound base B.
IMAGE_COMMANDS = [
    ("info", "I"),
    ("info", "--json", "I"),
    ("verify", "I"),
    ("extract", "I", "OUT"),
    ("map", "I"),
    ("map", "--check", "--svg", "OUT", "I"),
    ("commit", "I", "S", "OUT"),
]
COW_COMMANDS = [
    ("info", "C"),
    ("info", "--json", "C"),
    ("extract", "B", "C", "OUT"),
    ("map", "B", "C"),
    ("commit", "B", "C", "OUT"),
    ("cow", "repair", "--dry-run", "C"),
    ("cow", "repair", "--force", "C"),
    ("cow", "merge", "--yes", "B", "C"),
    ("cow", "pack", "C", "OUT"),
    ("cow", "pack", "--gzip", "C", "OUT"),
    ("cow", "unpack", "C", "OUT"),
    ("cow", "snapshot", "C", "OUT"),
]
damaged_files = st.one_of(
    st.tuples(st.sampled_from(IMAGE_COMMANDS), st.integers(0, len(KINDS) - 1), edits),
    st.tuples(
        st.sampled_from(COW_COMMANDS),
        st.sampled_from([*cowfile.LAYOUTS, "packed", "gzipped", "dirty"]),
        edits,
    ),
)


@functools.lru_cache(None)
def _cowfile_for(number: int) -> bytes:
    """A sound cowfile of an image before it is damaged."""
    return cowfile.build(KINDS[number].make()[1], {3: b"x" * UNIT})


def _cowfile(kind: str) -> bytes:
    blocks = {number: bytes([number]) * UNIT for number in (0, 9, 40, 63)}
    if kind in ("packed", "gzipped"):
        data = cowfile.build(_base(), blocks, packed=True)
        return gzip.compress(data) if kind == "gzipped" else data
    if kind != "dirty":
        return cowfile.build(_base(), blocks, kind)
    head = bytearray(cowfile.build(_base(), blocks))
    head[6] |= 1
    return bytes(head)


@settings(max_examples=600, deadline=None)
@given(damaged_files)
def test_every_command_on_damaged_files(
    example: tuple[tuple[str, ...], int | str, list[tuple[str, int, bytes]]],
) -> None:
    """Whatever is in a file: 0 or 1, one line that says why, and nothing half made."""
    words, kind, changes = example
    cli = pytest.importorskip("cowcloop.cli")
    with tempfile.TemporaryDirectory(prefix="cct-") as name:
        folder = Path(name)
        if isinstance(kind, int):
            damaged = _damaged(_image(kind), changes, HEAD)
            (folder / "S").write_bytes(_cowfile_for(kind))
            (folder / "I").write_bytes(damaged)
        else:
            damaged = _damaged(_cowfile(kind), changes, 64)
            (folder / "B").write_bytes(_base())
            (folder / "C").write_bytes(damaged)
        paths = {letter: str(folder / letter) for letter in ("I", "S", "B", "C", "OUT")}
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main([paths.get(word, word) for word in words])
        text = errors.getvalue()
        mannered(text)
        assert "internal error" not in text
        assert code in (0, 1), text
        if code == 1 and not (words[0] == "verify" and output.getvalue()):
            assert text.count("\n") == 1, text
        left = {path.name for path in folder.iterdir()} - set(paths)
        assert all(name.startswith("C.before-repair-") for name in left), left
        assert code == 0 or not (folder / "OUT").exists()
        if "--dry-run" in words or words[0] != "cow":
            for letter in "IC":
                if (folder / letter).exists():
                    assert (folder / letter).read_bytes() == damaged, "a reader changed it"


def test_the_commands_keep_their_manners(tmp_path: Path) -> None:
    """Some of the same through the command line: 0 or 1, and never a traceback."""
    rng = random.Random(31)
    path, out = tmp_path / "f", tmp_path / "out"
    for round_ in range(24):
        if round_ % 3:
            data, head = _image(rng.randrange(len(KINDS))), HEAD
        else:
            data, head = cowfile.build(_base(), {3: b"x" * UNIT}), 64
        places = ("front", "front", "back", "anywhere", "cut")
        changes = [
            (rng.choice(places), rng.randrange(1 << 24), rng.randbytes(rng.randint(1, 9)))
            for _ in range(3)
        ]
        path.write_bytes(_damaged(data, changes, head))
        for command in (("info", path), ("verify", path), ("extract", path, out)):
            done = cowcloop(*command, expect=None)
            mannered(done.stderr.decode())
            assert done.returncode in (0, 1), (command, changes, done.stderr)
            if done.returncode and command[0] != "verify":
                assert done.stderr.decode().count("\n") == 1
