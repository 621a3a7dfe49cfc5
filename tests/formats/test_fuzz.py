"""Sound files with random damage: an error of ours or the right size, and never a crash."""

from __future__ import annotations

import functools
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
