"""ISO 9660 images: made by genisoimage, or byte by byte for what it does not make."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from support.programs import program, run

SECTOR = 2048
ROOT_SECTOR = 20

DIRECTORY = 0x02
ASSOCIATED = 0x04
MORE_EXTENTS = 0x80

#: What marks Rock Ridge in the root's first record.
SP = b"SP\x07\x01\xbe\xef\x00"


def make(folder: Path, out: Path, *options: str) -> Path:
    """An image of a folder, made by genisoimage."""
    run(program("genisoimage", "genisoimage"), "-quiet", *options, "-o", out, folder)
    return out


def _both(number: int, width: str = "I") -> bytes:
    return struct.pack(f"<{width}", number) + struct.pack(f">{width}", number)


def record(
    name: bytes,
    sector: int,
    size: int,
    *,
    flags: int = 0,
    attributes: int = 0,
    unit: int = 0,
    gap: int = 0,
    system_use: bytes = b"",
) -> bytes:
    """A directory record."""
    body = bytes([attributes]) + _both(sector) + _both(size) + bytes(7)
    body += bytes([flags, unit, gap]) + _both(1, "H") + bytes([len(name)]) + name
    body += bytes(len(body) % 2 == 0) + system_use
    return bytes([len(body) + 1]) + body


def nm(name: bytes, flags: int = 0) -> bytes:
    """Rock Ridge's name."""
    return b"NM" + bytes([5 + len(name), 1, flags]) + name


def ce(sector: int, offset: int, length: int) -> bytes:
    """Where the rest of a record's area is."""
    return b"CE\x1c\x01" + _both(sector) + _both(offset) + _both(length)


def directory(sector: int, size: int, records: Sequence[bytes], system_use: bytes = b"") -> bytes:
    """The sectors of a directory; no record crosses their borders."""
    own = record(b"\0", sector, size, flags=DIRECTORY, system_use=system_use)
    sectors = [own + record(b"\1", ROOT_SECTOR, SECTOR, flags=DIRECTORY)]
    for each in records:
        if len(sectors[-1]) + len(each) > SECTOR:
            sectors.append(b"")
        sectors[-1] += each
    return b"".join(part.ljust(SECTOR, b"\0") for part in sectors)


def disc(
    records: Sequence[bytes], *, root_size: int | None = None, rock_ridge: bool = False
) -> bytes:
    """Descriptors and a root directory with these records; the files come behind, from ``len``."""
    mark = SP if rock_ridge else b""
    size = len(directory(ROOT_SECTOR, 0, records, mark)) if root_size is None else root_size
    root = directory(ROOT_SECTOR, size, records, mark)
    # The path tables know the root alone: little-endian, big-endian.
    tables = [struct.pack(f"{order}BBIHxx", 1, 0, ROOT_SECTOR, 1) for order in "<>"]
    primary = bytearray(SECTOR)
    primary[:7] = b"\x01CD001\x01"
    primary[40:72] = b"CRAFTED".ljust(32)
    primary[120:132] = _both(1, "H") + _both(1, "H") + _both(SECTOR, "H")
    primary[132:140] = _both(len(tables[0]))
    primary[140:156] = struct.pack("<II", 18, 0) + struct.pack(">II", 19, 0)
    primary[156:190] = record(b"\0", ROOT_SECTOR, size, flags=DIRECTORY)
    primary[881] = 1
    last = b"\xffCD001\x01"
    sectors = [bytes(primary), last, *tables]
    return bytes(16 * SECTOR) + b"".join(each.ljust(SECTOR, b"\0") for each in sectors) + root
