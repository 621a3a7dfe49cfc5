"""What discs have besides ISO 9660: UDF over the same files, and records of other programs."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import cowcloop
import pytest
from support import cloop, iso
from support.iso import SECTOR, ce, nm, record
from support.programs import cowcloop as program_cowcloop
from support.programs import one_line, program, refused, run

BLOCK = 4096
PLAIN = cloop.sample(12 * BLOCK, BLOCK)
IMAGE = cloop.build(PLAIN, BLOCK)
FIRST = iso.ROOT_SECTOR + 1
GIB = 1 << 30


def info(path: Path) -> dict[str, Any]:
    return dict(json.loads(program_cowcloop("info", path, "--json").stdout))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "KNOPPIX").mkdir(parents=True)
    (tree / "KNOPPIX/KNOPPIX").write_bytes(IMAGE)
    (tree / "readme").write_bytes(b"text" * 512)
    return tree


@pytest.mark.parametrize(
    "options",
    [("-udf",), ("-udf", "-R", "-J"), ("-udf", "-no-pad"), ("-R", "-allow-limited-size")],
)
def test_a_disc_with_udf(tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    path = iso.make(tree, tmp_path / "cd.iso", *options)
    done = program_cowcloop("info", path)
    assert done.stderr == b""
    found = info(path)
    assert found["problem"] is None
    assert found["skipped"] == []
    assert [each["path"] for each in found["images"]] == [f"{path}:/KNOPPIX/KNOPPIX"]
    assert program_cowcloop("extract", f"{path}:/KNOPPIX/KNOPPIX", "-").stdout == PLAIN


def _crc(data: bytes) -> int:
    """CRC-16 as ECMA-167, 7.2.6, has it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def _enlarge(path: Path, size: int, by: int) -> None:
    """Have UDF say that a file of this size is larger, with pieces as genisoimage makes."""
    data = bytearray(path.read_bytes())
    entries = [
        at
        for at in range(0, len(data), SECTOR)
        if struct.unpack_from("<H", data, at)[0] == 261
        and struct.unpack_from("<Q", data, at + 56)[0] == size
    ]
    assert len(entries) == 1
    at = entries[0]
    _, place = struct.unpack_from("<II", data, at + 176)
    pieces, left = b"", size + by
    while left:
        length = min(left, GIB - SECTOR)
        pieces += struct.pack("<II", length, place)
        place += length // SECTOR
        left -= length
    struct.pack_into("<Q", data, at + 56, size + by)
    struct.pack_into("<I", data, at + 172, len(pieces))
    data[at + 176 : at + 176 + len(pieces)] = pieces
    length = 160 + len(pieces)
    struct.pack_into("<HH", data, at + 8, _crc(bytes(data[at + 16 : at + 16 + length])), length)
    data[at + 4] = (sum(data[at : at + 16]) - data[at + 4]) & 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("by", [4 * GIB, 12 * GIB])
def test_a_size_that_iso9660_has_shortened(tmp_path: Path, by: int) -> None:
    """As `genisoimage -allow-limited-size` makes it of a file of more than 4 GiB; sparse here."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(b"begin".ljust(7 * SECTOR + 5, b"\1"))
    path = iso.make(tree, tmp_path / "cd.iso", "-allow-limited-size", "-R", "-no-pad")
    size = 7 * SECTOR + 5 + by
    begin = path.read_bytes().index(b"begin\1")
    _enlarge(path, 7 * SECTOR + 5, by)
    # UDF has an anchor in the last sector, or 256 before that.
    anchor = path.read_bytes()[-SECTOR:]
    assert anchor[:2] == b"\2\0"
    os.truncate(path, begin + size + 300 * SECTOR)
    with path.open("r+b") as file:
        file.seek(begin + size - 3)
        file.write(b"end")
    with cowcloop.open(f"{path}:/big") as disk:
        assert disk.size == size
        assert disk.pread(5, 0) == b"begin"
        assert disk.pread(3, size - 3) == b"end"
    # A disc that ends before is cut short.
    os.truncate(path, begin + size - 1)
    refused("info", f"{path}:/big", says=("lies beyond the end", "copy that again"))


def test_a_size_that_iso9660_has_as_nothing(tmp_path: Path) -> None:
    """4 GiB sharp; an empty file is shown at the same place, and is empty."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "round.img").write_bytes(b"begin".ljust(SECTOR, b"\1"))
    (tree / "empty.img").touch()
    path = iso.make(tree, tmp_path / "cd.iso", "-allow-limited-size", "-R", "-no-pad")
    _enlarge(path, SECTOR, 4 * GIB - SECTOR)
    data = bytearray(path.read_bytes())
    begin = data.index(b"begin\1")
    place = struct.pack("<I", begin // SECTOR) + struct.pack(">I", begin // SECTOR)
    shortened = place + struct.pack("<I", SECTOR) + struct.pack(">I", SECTOR)
    assert data.count(shortened) == 1
    data[data.index(shortened) : data.index(shortened) + 16] = place + bytes(8)
    assert data.count(place + bytes(8)) == 2
    path.write_bytes(data)
    os.truncate(path, begin + 4 * GIB)
    with cowcloop.open(f"{path}:/round.img") as disk:
        assert (disk.size, disk.pread(5, 0)) == (4 * GIB, b"begin")
    refused("info", f"{path}:/empty.img", says="the file is empty")


def test_udf_that_is_damaged(tree: Path, tmp_path: Path) -> None:
    """ISO 9660 is read all the same, and what was skipped is said."""
    path = iso.make(tree, tmp_path / "cd.iso", "-udf", "-R")
    data = bytearray(path.read_bytes())
    data[256 * SECTOR : 257 * SECTOR] = os.urandom(SECTOR)
    path.write_bytes(data)
    assert program_cowcloop("extract", f"{path}:/KNOPPIX/KNOPPIX", "-").stdout == PLAIN
    done = program_cowcloop("info", path)
    one_line(done.stderr.decode(), ("warning", "UDF", "skipped", "4 GiB"))
    assert "/KNOPPIX/KNOPPIX" in done.stdout.decode()


def test_zisofs(tree: Path, tmp_path: Path) -> None:
    """Files that it has compressed are named; the others are read."""
    (tree / "zeros").write_bytes(bytes(300_000))
    packed = tmp_path / "packed"
    run(program("mkzftree", "zisofs-tools"), tree, packed)
    (packed / "KNOPPIX/KNOPPIX").write_bytes(IMAGE)
    (packed / "readme").unlink()
    path = iso.make(packed, tmp_path / "cd.iso", "-R", "-z")
    assert program_cowcloop("extract", f"{path}:/KNOPPIX/KNOPPIX", "-").stdout == PLAIN
    done = program_cowcloop("info", path)
    one_line(done.stderr.decode(), ("warning", "zeros: not looked into", "zisofs"))
    assert info(path)["skipped"] == [
        {"path": f"{path}:/zeros", "reason": "zisofs has compressed it"}
    ]
    refused("info", f"{path}:/zeros", says=("zisofs has compressed it", "mount"))


def _su(name: bytes, *, size: int = 16, version: int = 1) -> bytes:
    return (name + bytes([size, version])).ljust(size, b"\7")


_BEHIND = ce(FIRST, 0, 16 + 14)
_CASES = {
    "behind the name": nm(b"name.img") + _su(b"ZZ"),
    "before the name": _su(b"ZZ") + nm(b"name.img"),
    "of another version": _su(b"ZZ", version=9) + nm(b"name.img"),
    "of an odd length": nm(b"name.img") + _su(b"ZZ", size=5),
    "nothing but itself": nm(b"name.img") + _su(b"ZZ", size=4),
    "the end, and rubbish behind it": nm(b"name.img") + _su(b"ZZ") + b"ST\4\1" + b"\xee" * 40,
    "too little behind it": nm(b"name.img") + _su(b"ZZ") + b"\xee" * 3,
    "in a continuation": _su(b"ZZ") + _BEHIND,
}


@pytest.mark.parametrize("case", _CASES)
def test_records_of_other_programs(tmp_path: Path, case: str) -> None:
    """No more than their names is lost on the reader, and that it says."""
    behind = (_su(b"ZZ") + nm(b"name.img") + b"\0").ljust(SECTOR, b"\0")
    records = [
        record(b"A.;1", FIRST + 1, len(IMAGE), system_use=_CASES[case]),
        record(b"B.;1", FIRST + 1, len(IMAGE), system_use=nm(b"other.img")),
    ]
    path = tmp_path / "cd.iso"
    path.write_bytes(iso.disc(records, rock_ridge=True) + behind + IMAGE)
    for name in ("name.img", "other.img"):
        assert program_cowcloop("extract", f"{path}:/{name}", "-").stdout == PLAIN
    found = info(path)
    assert sorted(each["path"] for each in found["images"]) == [
        f"{path}:/name.img",
        f"{path}:/other.img",
    ]
    one_line(program_cowcloop("info", path).stderr.decode(), ("warning", "kind ZZ", "skipped"))
