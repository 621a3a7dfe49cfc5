"""commit: a new image with the changes in it, and what of the old one still fits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import cloop, cowfile, images, nbdclient
from support.interrupted import stopped_half_way
from support.programs import cowcloop, refused
from support.server import serving

UNIT = cowfile.UNIT
BLOCK = 4096
PLAIN = cloop.PLAIN
CHANGED = {0: b"a" * UNIT, 8: b"b" * UNIT, 9: b"\0" * UNIT, 159: b"c" * UNIT}


@pytest.fixture
def cow(tmp_path: Path) -> Path:
    path = tmp_path / "i.cow"
    path.write_bytes(cowfile.build(PLAIN, CHANGED))
    return path


@pytest.mark.parametrize("layout", cowfile.LAYOUTS)
def test_the_changes_are_in_the_new_image(image: Path, tmp_path: Path, layout: str) -> None:
    cow, new = tmp_path / "c", tmp_path / "new"
    cow.write_bytes(cowfile.build(PLAIN, CHANGED, layout))
    before = image.read_bytes(), cow.read_bytes()
    done = cowcloop("commit", "-v", image, cow, new)
    assert b"37 blocks copied, 3 compressed" in done.stderr
    assert done.stdout == b""
    assert (image.read_bytes(), cow.read_bytes()) == before
    assert cowcloop("extract", new, "-").stdout == cowfile.merged(PLAIN, CHANGED)
    cowcloop("verify", new)


def test_it_equals_extract_and_create(chicken: Path, tmp_path: Path) -> None:
    """Also as other programs read it."""
    cow, raw = tmp_path / "c", tmp_path / "raw"
    with serving(chicken, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(os.urandom(200_000), 1_000_001)
        handle.zero(300_000, 3_000_000)
        handle.pwrite(b"end", handle.get_size() - 3)
        handle.shutdown()
    new, again = tmp_path / "new", tmp_path / "again"
    cowcloop("commit", chicken, cow, new)
    cowcloop("extract", chicken, cow, raw)
    cowcloop("create", raw, again)
    assert cowcloop("extract", new, "-").stdout == raw.read_bytes()
    assert cowcloop("extract", again, "-").stdout == raw.read_bytes()
    for name, found in images.read_by_others(new, tmp_path).items():
        assert found == raw.read_bytes(), name


def test_a_stack_of_cowfiles(image: Path, cow: Path, tmp_path: Path) -> None:
    upper, new = tmp_path / "u", tmp_path / "new"
    device = cowfile.merged(PLAIN, CHANGED)
    upper.write_bytes(cowfile.build(device, {8: b"u" * UNIT}))
    cowcloop("commit", image, cow, upper, new)
    expected = cowfile.merged(device, {8: b"u" * UNIT})
    assert cowcloop("extract", new, "-").stdout == expected


def test_a_raw_base(tmp_path: Path, cow: Path) -> None:
    raw, new = tmp_path / "raw", tmp_path / "new"
    raw.write_bytes(PLAIN)
    cowcloop("commit", "--block-size", "4K", raw, cow, new)
    assert cowcloop("extract", new, "-").stdout == cowfile.merged(PLAIN, CHANGED)


def test_the_old_cowfile_is_refused_on_the_new_image(
    image: Path, cow: Path, tmp_path: Path
) -> None:
    new, fresh = tmp_path / "new", tmp_path / "fresh.cow"
    cowcloop("commit", image, cow, new, "--rebase", fresh)
    refused("extract", new, cow, "-", says=("i.cow", "another base"))
    refused("extract", image, fresh, "-", says="fresh.cow")
    assert cowfile.original_refuses(fresh, cowfile.merged(PLAIN, CHANGED)) is None
    assert cowfile.parse(fresh).used == 0
    with serving(new, fresh) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"goes on", 77)
        handle.shutdown()
    assert cowcloop("extract", new, fresh, "-").stdout[77:84] == b"goes on"


def test_the_old_cowfile_is_refused_even_where_the_fingerprint_is_the_same(
    image: Path, tmp_path: Path
) -> None:
    """Its four sums are those of the first blocks; a change far behind leaves them alone."""
    cow, new = tmp_path / "c", tmp_path / "new"
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"far behind", 150 * UNIT)
        handle.shutdown()
    cowcloop("commit", image, cow, new)
    assert cowfile.fingerprint(cowcloop("extract", new, "-").stdout) == cowfile.fingerprint(PLAIN)
    refused("extract", new, cow, "-", says="another base")


def test_what_is_refused(image: Path, cow: Path, tmp_path: Path) -> None:
    new, taken = tmp_path / "new", tmp_path / "taken"
    taken.write_bytes(b"precious")
    refused("commit", image, cow, new, "--rebase", taken, says="taken exists")
    refused("commit", image, cow, new, "--rebase", tmp_path / "no/where", says="where")
    refused("commit", image, tmp_path / "nowhere", new, says="nowhere")
    refused("commit", tmp_path / "nowhere", cow, new, says="nowhere")
    refused("commit", image, cow, "/proc/self/new")
    refused("commit", image, cow, image)
    refused("commit", image, cow, cow)
    with serving(image, cow):
        refused("commit", image, cow, new, says=("i.cow", "in use"))
    assert taken.read_bytes() == b"precious"
    assert not new.exists()
    assert cowcloop("extract", image, cow, "-").stdout == cowfile.merged(PLAIN, CHANGED)


def test_a_damaged_block_is_not_lost_in_silence(image: Path, cow: Path, tmp_path: Path) -> None:
    data = bytearray(image.read_bytes())
    data[-60:-40] = bytes(20)
    image.write_bytes(data)
    new = tmp_path / "new"
    done = cowcloop("commit", image, cow, new, expect=None)
    if done.returncode == 0:
        # Its bytes were copied as they are: reading them still says so.
        cowcloop("verify", new, expect=1)
    else:
        assert done.returncode == 1
        assert not new.exists()


def test_wrong_arguments(image: Path, cow: Path) -> None:
    for words in ((), (image,), (image, cow), (image, cow, "-", "--rebase", "x")):
        done = cowcloop("commit", *words, expect=2)
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(b"cowcloop: ")


def test_interrupted_half_way(tmp_path: Path) -> None:
    raw, cow = tmp_path / "raw", tmp_path / "cow"
    raw.write_bytes(os.urandom(1 << 20) * 96)
    cow.write_bytes(cowfile.build(raw.read_bytes(), {5: b"x" * UNIT}))
    out = tmp_path / "out"
    assert stopped_half_way("commit", "--level", "best", raw, cow, out, folder=tmp_path) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cow", "raw"]
