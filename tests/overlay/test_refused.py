"""Cowfiles that must not be used, each refused with the line that helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import cloop, cowfile
from support.programs import cowcloop, one_line, refused
from support.server import serving

UNIT = cowfile.UNIT
PLAIN = cloop.PLAIN
CHANGED = {3: b"q" * UNIT}


def _with(**fields: int) -> bytes:
    head = cowfile.head_for(PLAIN)
    made = cowfile.build(PLAIN, CHANGED, head=head)
    for name, value in fields.items():
        setattr(head, name, value)
    return head.pack() + made[len(head.pack()) :]


def _miscounted() -> bytes:
    return _with(cowused=2)


CASES: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "another base, other content": (
        lambda: cowfile.build(cloop.sample(160 * UNIT, 4096, 99), CHANGED),
        ("fingerprint", "base"),
    ),
    "another base, other size": (
        lambda: cowfile.build(PLAIN + b"\1" * UNIT, CHANGED),
        ("161", "160"),
    ),
    "packed": (lambda: cowfile.build(PLAIN, CHANGED, packed=True), ("packed", "unpack")),
    "newer version": (lambda: cowfile.build(PLAIN, CHANGED, version=7), ("version", "7")),
    "dirty by the original driver": (
        lambda: cowfile.build(PLAIN, CHANGED, flags=cowfile.DIRTY),
        ("original", "repair"),
    ),
    "cowused is not the bitmap's": (_miscounted, ("cowused",)),
    "mapunit": (lambda: _with(mapunit=4096), ()),
    "mapsize too small": (lambda: _with(mapsize=0), ()),
    "mapsize huge": (lambda: _with(mapsize=1 << 62), ()),
    "mapsize negative": (lambda: _with(mapsize=-1024), ()),
    "doffset inside the bitmap": (lambda: _with(doffset=1024), ("doffset",)),
    "doffset negative": (lambda: _with(doffset=-4096), ("doffset",)),
    "doffset within a sector": (
        lambda: _with(doffset=4096 + 256),
        ("doffset 4352", "multiple of 512", "undamaged copy"),
    ),
    "doffset huge": (lambda: _with(doffset=(1 << 63) - 4096), ("doffset",)),
    "rdoblocks negative": (lambda: _with(rdoblocks=-1), ()),
    "not a cowfile": (lambda: b"just some text" * 1000, ("not a cowfile",)),
    "cut in the head": (lambda: cowfile.build(PLAIN, CHANGED)[:500], ()),
    "cut in the bitmap": (lambda: cowfile.build(PLAIN, CHANGED)[:1100], ()),
    "a cloop image": (lambda: cloop.build(PLAIN, 4096), ("not a cowfile",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_refused(image: Path, tmp_path: Path, name: str) -> None:
    make, words = CASES[name]
    _is_refused(image, tmp_path / "bad.cow", make(), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"packed": True}, ("packed",)),
        ({"version": 7}, ("version", "7")),
        ({"flags": cowfile.DIRTY}, ("original", "repair")),
    ],
    ids=["packed", "newer version", "dirty"],
)
def test_refused_in_the_other_layout(
    image: Path, tmp_path: Path, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    made = cowfile.build(PLAIN, CHANGED, "32-big", **options)
    _is_refused(image, tmp_path / "bad.cow", made, words)


def _is_refused(image: Path, cow: Path, made: bytes, words: tuple[str, ...]) -> None:
    cow.write_bytes(made)
    refused("serve", image, cow, says=("bad.cow: ", *words))
    refused("extract", image, cow, cow.with_name("out"), says=("bad.cow: ", *words))
    assert cow.read_bytes() == made, "a refused cowfile is not touched"
    assert sorted(path.name for path in cow.parent.iterdir()) == ["bad.cow", "i.img"]


def test_in_use(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    with serving(image, cow):
        refused("serve", image, cow, says=("c: ", "in use"))
        refused("extract", image, cow, tmp_path / "out", says=("c: ", "in use"))
        refused("attach", image, cow, says=("c: ", "in use"))
        # Looking is allowed.
        info = json.loads(cowcloop("info", "--json", cow).stdout)
        assert info["path"] == str(cow)
        assert "image" not in info
        assert info["type"] == "cowfile"
    with serving(image, cow):
        pass


def test_a_lower_cowfile_is_in_use_too(image: Path, tmp_path: Path) -> None:
    lower, upper = tmp_path / "l", tmp_path / "u"
    lower.write_bytes(cowfile.build(PLAIN, CHANGED))
    with serving(image, lower, upper):
        refused("serve", image, lower, says=("l: ", "in use"))
        # Two readers of one lower cowfile do not hurt each other.
        with serving(image, lower, tmp_path / "other"):
            pass


def test_a_cowfile_is_not_made_where_it_should_exist(image: Path, tmp_path: Path) -> None:
    none = tmp_path / "none.cow"
    refused("extract", image, none, tmp_path / "out", says="none.cow")
    refused("serve", "--read-only", image, none, says="none.cow")
    refused("serve", image, none, tmp_path / "upper.cow", says="none.cow")
    refused("info", none, says="none.cow")
    assert list(tmp_path.iterdir()) == [image]


def test_a_cowfile_in_a_missing_directory(image: Path, tmp_path: Path) -> None:
    refused("serve", image, tmp_path / "no" / "c", says="c: ")


def test_a_cowfile_where_no_file_can_be_made(image: Path) -> None:
    """On sysfs not even root makes files."""
    refused("serve", image, "/sys/chicken.cow", says="name a place where you may write")


def test_a_cowfile_that_is_the_image(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(PLAIN)
    done = cowcloop("serve", raw, raw, expect=2)
    one_line(done.stderr.decode(), ("raw", "the image is given as a cowfile"))
    assert raw.read_bytes() == PLAIN


def test_dirty_by_the_original_driver_can_be_repaired(image: Path, tmp_path: Path) -> None:
    """The bitmap is stale: block 9 was written, its bit never was."""
    cow = tmp_path / "c"
    made = bytearray(cowfile.build(PLAIN, {3: b"q" * UNIT, 9: b"r" * UNIT}, flags=cowfile.DIRTY))
    made[UNIT + 1] = 0
    cow.write_bytes(made)
    refused("serve", image, cow, says=("original", "--repair"))
    with serving("--repair", image, cow, quiet=False):
        pass
    assert cowfile.original_refuses(cow, PLAIN) is None
    assert cowfile.parse(cow).blocks == {3: b"q" * UNIT, 9: b"r" * UNIT}
