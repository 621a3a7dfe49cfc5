"""cow pack and unpack, with the layouts of the original cowpack."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from support import cowfile
from support.cows import CHANGED, DATA, PLAIN, dirty, layouts
from support.programs import cowcloop, one_line, program, refused, run
from support.server import attach


@layouts
@pytest.mark.parametrize("zipped", [False, True])
def test_pack_and_unpack(cow: Path, tmp_path: Path, layout: str, zipped: bool) -> None:
    plain = cowfile.build(PLAIN, CHANGED, layout)
    cow.write_bytes(plain)
    packed, back = tmp_path / "p", tmp_path / "b"
    cowcloop("cow", "pack", *(["-z"] if zipped else []), cow, packed)
    data = packed.read_bytes()
    expected = cowfile.build(PLAIN, CHANGED, layout, packed=True, compact=zipped)
    assert (gzip.decompress(data) if zipped else data) == expected
    # What cowpack wrote is read, and what came out of it is the file as it was.
    packed.write_bytes(gzip.compress(expected) if zipped else expected)
    cowcloop("cow", "unpack", packed, back)
    assert back.read_bytes() == plain
    # So is what gunzip left, and what early versions of this program wrote.
    early = cowfile.build(PLAIN, CHANGED, layout, packed=True)
    for other in (expected, gzip.compress(early)):
        packed.write_bytes(other)
        cowcloop("cow", "unpack", "--force", packed, back)
        assert back.read_bytes() == plain
    assert cow.read_bytes() == plain


def test_unpack_a_file_of_the_original_cowpack(tmp_path: Path) -> None:
    """And it packs again to the bytes that the original compressed."""
    packed, base = DATA / "cowpack31-64bit.packed.gz", DATA / "cowbase.raw"
    cow, again = tmp_path / "c.cow", tmp_path / "again.gz"
    cowcloop("cow", "unpack", packed, cow)
    assert cowfile.original_refuses(cow, base.read_bytes()) is None
    found = cowfile.parse(cow)
    assert found.used == 7
    merged = cowfile.merged(base.read_bytes(), found.blocks)
    assert cowcloop("extract", base, cow, "-").stdout == merged
    cowcloop("cow", "pack", "-z", cow, again)
    assert gzip.decompress(again.read_bytes()) == gzip.decompress(packed.read_bytes())


@pytest.mark.parametrize("zipped", [False, True])
def test_packing_keeps_to_which_base_it_belongs(raw: Path, tmp_path: Path, zipped: bool) -> None:
    """Our mark is in neither of the original's layouts, and there afterwards."""
    cow, packed, other = tmp_path / "m.cow", tmp_path / "p", tmp_path / "other.raw"
    cowcloop("detach", attach(raw, cow))
    before = cow.read_bytes()
    cowcloop("cow", "pack", *(["-z"] if zipped else []), cow, packed)
    cow.unlink()
    cowcloop("cow", "unpack", packed, cow)
    assert cow.read_bytes() == before
    # Another base that the original's fingerprint takes for this one.
    other.write_bytes(PLAIN[:-1] + b"!")
    refused("extract", other, cow, "-", says="another base")


def test_packed_and_unpacked_files_are_private(cow: Path, tmp_path: Path) -> None:
    """They hold what was written, and what was deleted from it."""
    packed, back = tmp_path / "p", tmp_path / "b"
    cowcloop("cow", "pack", cow, packed)
    cowcloop("cow", "unpack", packed, back)
    assert [path.stat().st_mode & 0o777 for path in (packed, back)] == [0o600, 0o600]


def test_pack_through_a_pipe(cow: Path, tmp_path: Path) -> None:
    packed = cowcloop("cow", "pack", "-z", cow, "-").stdout
    cowcloop("cow", "unpack", "-", tmp_path / "back", stdin=packed)
    assert cowfile.parse(tmp_path / "back").blocks == CHANGED


@pytest.mark.parametrize("zipped", [False, True])
def test_unpack_leaves_out_what_goes_on_behind_the_end(
    cow: Path, tmp_path: Path, zipped: bool
) -> None:
    """The original never cuts a file that it packs into, and does not mind either."""
    packed, back = tmp_path / "p", tmp_path / "b"
    cowcloop("cow", "pack", *(["-z"] if zipped else []), cow, packed)
    whole = packed.read_bytes()
    for more in (b"", b"\0", b"junk\n", b"garbage" * 100, gzip.compress(b"x")):
        packed.write_bytes(whole + more)
        done = cowcloop("cow", "unpack", "--force", packed, back)
        assert back.read_bytes() == cow.read_bytes()
        if more:
            one_line(done.stderr.decode(), ("p: ", "goes on behind", "left out"))
        else:
            assert done.stderr == b""


def test_unpack_to_a_block_device_is_refused(cow: Path, tmp_path: Path, loop: None) -> None:
    """It has no holes: its old content would be taken for written blocks."""
    packed, backing = tmp_path / "packed", tmp_path / "disk"
    cowcloop("cow", "pack", cow, packed)
    backing.write_bytes(b"\xee" * (1 << 20))
    losetup = program("losetup", "mount")
    device = run(losetup, "--find", "--show", backing).stdout.decode().strip()
    try:
        refused("cow", "unpack", packed, device, says="block device")
    finally:
        run(losetup, "--detach", device)
    assert backing.read_bytes() == b"\xee" * (1 << 20)


def test_pack_refuses(cow: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused("cow", "pack", cow, cow)
    for data, says in (
        (dirty("32-big"), "cow repair"),
        (cowfile.build(PLAIN, CHANGED, packed=True), "packed"),
        (b"no cowfile" * 1000, "disk.cow"),
    ):
        cow.write_bytes(data)
        refused("cow", "pack", cow, out, says=says)
        assert not out.exists()
    cow.write_bytes(cowfile.build(PLAIN, CHANGED))
    refused("cow", "unpack", cow, out, says="packed")
    assert not out.exists()
