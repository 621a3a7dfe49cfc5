"""cow rebase: a cowfile on the same device, extracted or compressed anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support import cloop, cowfile, nbdclient
from support.cows import CHANGED, PLAIN, UNIT
from support.programs import cowcloop, one_line, refused
from support.server import attach, serving

WRITTEN = {3: b"w" * UNIT, 150: b"v" * UNIT}


def _written(image: Path, *cows: Path) -> None:
    """Writes into the last cowfile, which gets our mark."""
    with serving(image, *cows) as server:
        handle = nbdclient.connect(server.uri)
        for number, block in WRITTEN.items():
            handle.pwrite(block, number * UNIT)
        handle.shutdown()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.img"
    path.write_bytes(cloop.build(PLAIN, 4096))
    return path


@pytest.fixture
def cow(old: Path, tmp_path: Path) -> Path:
    path = tmp_path / "c.cow"
    _written(old, path)
    return path


def _extracted(tmp_path: Path) -> Path:
    path = tmp_path / "new.raw"
    path.write_bytes(PLAIN)
    return path


def _compressed_anew(tmp_path: Path) -> Path:
    path = tmp_path / "new.img"
    path.write_bytes(cloop.build(PLAIN, 8192, signature="V4.0", codec="lz4"))
    return path


SAME = pytest.mark.parametrize("make", [_extracted, _compressed_anew])


@SAME
@pytest.mark.parametrize("how", ["old", "trust"])
def test_the_same_device(
    make: Callable[[Path], Path], how: str, old: Path, cow: Path, tmp_path: Path
) -> None:
    new = make(tmp_path)
    before = cow.read_bytes()
    says = ("c.cow", "another base", "same size and fingerprint", "another image", "cow rebase")
    refused("attach", new, cow, says=says)
    options = ["--old", old] if how == "old" else ["--trust-base"]
    done = json.loads(cowcloop("cow", "rebase", new, cow, *options, "--json").stdout)
    assert done["changed"]
    assert done["compared"] == (len(PLAIN) if how == "old" else 0)
    assert cowcloop("extract", new, cow, "-").stdout == cowfile.merged(PLAIN, WRITTEN)
    # It is the new image's now. Nothing but the mark has changed.
    refused("extract", old, cow, "-", says="cow rebase")
    after = cow.read_bytes()
    assert (after[:128], after[256:]) == (before[:128], before[256:])
    assert b"fits" in cowcloop("cow", "rebase", new, cow, *options).stderr
    assert cow.read_bytes() == after
    cowcloop("cow", "rebase", old, cow, "--trust-base")
    assert cow.read_bytes() == before


def test_another_device_is_refused_and_nothing_changes(
    old: Path, cow: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new.raw"
    before = cow.read_bytes()
    # Far behind the blocks that make the fingerprint, and where the cowfile has no block.
    other = bytearray(PLAIN)
    other[100 * UNIT + 5] ^= 1
    new.write_bytes(other)
    says = ("c.cow", "not the same device", f"byte {100 * UNIT + 5} differs")
    refused("cow", "rebase", new, cow, "--old", old, says=says)
    # Another fingerprint, another size.
    new.write_bytes(b"!" + PLAIN[1:])
    for options in (["--old", old], ["--trust-base"]):
        refused("cow", "rebase", new, cow, *options, says="fingerprint")
    refused("attach", new, cow, says="another content")
    new.write_bytes(PLAIN + bytes(UNIT))
    for options in (["--old", old], ["--trust-base"]):
        refused("cow", "rebase", new, cow, *options, says=str(len(PLAIN)))
    # What is said to be the old image must be it.
    new.write_bytes(PLAIN)
    stranger = tmp_path / "stranger.img"
    stranger.write_bytes(cloop.build(PLAIN, 8192))
    refused("cow", "rebase", new, cow, "--old", stranger, says="old one")
    assert cow.read_bytes() == before


def test_a_stack_is_rebased_from_below(old: Path, cow: Path, tmp_path: Path) -> None:
    new, upper = _extracted(tmp_path), tmp_path / "upper.cow"
    with serving(old, cow, upper) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"u" * UNIT, 9 * UNIT)
        handle.shutdown()
    device = cowcloop("extract", old, cow, upper, "-").stdout
    refused("cow", "rebase", new, cow, upper, "--old", old, says=("c.cow", "cow rebase"))
    cowcloop("cow", "rebase", new, cow, "--old", old)
    refused("extract", new, cow, upper, "-", says=("upper.cow", "cow rebase"))
    # Without the lower one it is another device, however alike.
    refused("cow", "rebase", new, upper, "--old", old, says="upper.cow")
    cowcloop("cow", "rebase", new, cow, upper, "--old", old)
    assert cowcloop("extract", new, cow, upper, "-").stdout == device


def test_a_cowfile_of_the_original_driver_fits_as_it_is(old: Path, tmp_path: Path) -> None:
    new, cow = _extracted(tmp_path), tmp_path / "d.cow"
    cow.write_bytes(cowfile.build(PLAIN, CHANGED))
    before = cow.read_bytes()
    done = cowcloop("cow", "rebase", new, cow, "--old", old)
    one_line(done.stderr.decode(), "fits")
    assert cow.read_bytes() == before


def test_what_is_refused(old: Path, cow: Path, tmp_path: Path) -> None:
    new = _extracted(tmp_path)
    both: list[str | Path] = ["--old", old, "--trust-base"]
    for options in ([], both):
        done = cowcloop("cow", "rebase", new, cow, *options, expect=2)
        one_line(done.stderr.decode(), ("--old", "--trust-base"))
    refused("cow", "rebase", new, tmp_path / "no.cow", "--trust-base", says="no.cow")
    refused("cow", "rebase", tmp_path / "no.raw", cow, "--trust-base", says="no.raw")
    uri = attach(old, cow)
    refused("cow", "rebase", new, cow, "--trust-base", says=("c.cow", "in use"))
    cowcloop("detach", uri)
