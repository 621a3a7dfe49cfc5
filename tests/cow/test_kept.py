"""A forgotten OUT: cowfiles and compressed images are kept unless --force is given."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from support import cloop, cowfile
from support.programs import cowcloop, refused

BASE = cloop.PLAIN
CHANGED = {3: b"\x41" * 1024}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "p.packed"
    path.write_bytes(cowfile.build(BASE, CHANGED, packed=True))
    return path


@pytest.fixture
def cow(tmp_path: Path) -> Path:
    path = tmp_path / "i.cow"
    path.write_bytes(cowfile.build(BASE, CHANGED))
    return path


def clean() -> bytes:
    return cowfile.build(BASE, CHANGED)


def dirty() -> bytes:
    return cowfile.build(BASE, CHANGED, flags=cowfile.DIRTY)


def packed_bytes() -> bytes:
    return cowfile.build(BASE, CHANGED, packed=True)


def gzipped() -> bytes:
    return gzip.compress(packed_bytes(), mtime=0)


def compact() -> bytes:
    """As the original cowpack -z has it: no padding anywhere."""
    head = cowfile.head_for(BASE)
    head.flags, head.cowused = cowfile.PACKED, 1
    return gzip.compress(head.pack() + b"\x08" + bytes(head.mapsize - 1) + CHANGED[3], mtime=0)


def big_endian() -> bytes:
    return cowfile.build(BASE, CHANGED, "32-big")


def image_bytes() -> bytes:
    return cloop.build(BASE, 4096)


COWFILES = [clean, dirty, packed_bytes, gzipped, compact, big_endian]

JOBS = {
    "extract": ["extract", "i.img", "OUT"],
    "extract with a COW": ["extract", "i.img", "i.cow", "OUT"],
    "create": ["create", "plain", "OUT"],
    "create of a directory": ["create", "folder", "OUT"],
    "commit": ["commit", "i.img", "i.cow", "OUT"],
    "pack": ["cow", "pack", "i.cow", "OUT"],
    "unpack": ["cow", "unpack", "p.packed", "OUT"],
    "svg": ["map", "i.img", "--svg", "OUT"],
    "png": ["map", "i.img", "--png", "OUT"],
}
MAKE_IMAGES = ("create", "create of a directory", "commit")


@pytest.fixture
def place(tmp_path: Path, image: Path, cow: Path, packed: Path) -> Path:
    (tmp_path / "plain").write_bytes(BASE)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("make", COWFILES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("job", JOBS)
def test_a_cowfile_is_kept(place: Path, job: str, make: Callable[[], bytes]) -> None:
    out = place / "OUT"
    out.write_bytes(make())
    before = sorted(place.iterdir())
    refused(*JOBS[job], says=("OUT: is a cowfile", "--force"), cwd=place)
    assert out.read_bytes() == make()
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("job", JOBS)
def test_an_image_is_kept_where_another_thing_is_made(place: Path, job: str) -> None:
    out = place / "OUT"
    out.write_bytes(image_bytes())
    if job in MAKE_IMAGES:
        cowcloop(*JOBS[job], cwd=place)
        return
    refused(*JOBS[job], says=("OUT: is a compressed image", "--force"), cwd=place)
    assert out.read_bytes() == image_bytes()


@pytest.mark.parametrize("job", JOBS)
def test_force_replaces_it(place: Path, job: str) -> None:
    out = place / "OUT"
    cowcloop(*JOBS[job], cwd=place)
    made = out.read_bytes()
    out.write_bytes(b"whatever")
    cowcloop(*JOBS[job], cwd=place)
    assert out.read_bytes()[:256] == made[:256]
    out.write_bytes(clean() if job != "unpack" else dirty())
    cowcloop(*JOBS[job], "--force", cwd=place)
    assert out.read_bytes()[:256] == made[:256]


def test_force_replaces_neither_an_input_nor_a_cowfile_in_use(place: Path) -> None:
    for arguments in (
        ("extract", "i.img", "i.cow", "i.cow"),
        ("extract", "i.img", "i.cow", "i.img"),
        ("commit", "i.img", "i.cow", "i.img"),
        ("create", "plain", "plain"),
        ("cow", "pack", "i.cow", "i.cow"),
        ("cow", "unpack", "p.packed", "p.packed"),
        ("cow", "snapshot", "i.cow", "i.cow"),
    ):
        refused(*arguments, "--force", says="is also an input", cwd=place)
    uri = cowcloop("attach", "i.img", "i.cow", cwd=place).stdout.decode().strip()
    refused("extract", "plain", "i.cow", "--force", says="in use", cwd=place)
    refused("cow", "snapshot", uri, "i.cow", "--force", says="in use", cwd=place)
    cowcloop("detach", uri)
    assert cowfile.parse(place / "i.cow").blocks == CHANGED


def test_a_snapshot_replaces_what_it_is_told_to(place: Path) -> None:
    other = place / "other.cow"
    other.write_bytes(dirty())
    refused("cow", "snapshot", "i.cow", "other.cow", says=("exists", "--force"), cwd=place)
    assert other.read_bytes() == dirty()
    for target in ("i.cow", "served"):
        if target == "served":
            target = cowcloop("attach", "i.img", "i.cow", cwd=place).stdout.decode().strip()
        other.write_bytes(dirty())
        before = sorted(place.iterdir())
        cowcloop("cow", "snapshot", target, "other.cow", "--force", cwd=place)
        assert cowfile.parse(other).blocks == CHANGED
        assert cowfile.parse(other).head.flags == 0
        assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("make", [clean, gzipped, image_bytes], ids=lambda make: make.__name__)
def test_a_log_is_not_appended_to_one(place: Path, make: Callable[[], bytes]) -> None:
    log = place / "log"
    log.write_bytes(make())
    for command in ("serve", "attach"):
        done = cowcloop(command, "i.img", "--log", "log", expect=2, cwd=place)
        assert "name another file" in done.stderr.decode()
    assert log.read_bytes() == make()
