"""Cowfiles as the original driver knows them: built, parsed and judged from the format page."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

UNIT = 1024
MAGIC = 0x574F437F
DIRTY = 0x01
PACKED = 0x02

#: name -> (struct byte order, letter of a `long`)
LAYOUTS = {
    "64-little": ("<", "q"),
    "32-little": ("<", "i"),
    "64-big": (">", "q"),
    "32-big": (">", "i"),
}


def _head_format(layout: str) -> struct.Struct:
    order, long = LAYOUTS[layout]
    return struct.Struct(f"{order}ihh6{long}")


def fingerprint(base: bytes) -> int:
    """The four byte sums of a base, as a signed 32-bit number."""
    value = found = 0
    for at in range(0, len(base) // UNIT * UNIT, UNIT):
        total = sum(base[at : at + UNIT]) & 0xFF
        if total:
            value |= total << (8 * found)
            found += 1
            if found == 4:
                break
    return value - (1 << 32) if value & 0x80000000 else value


@dataclass
class Head:
    """The head of a cowfile, fields as stored."""

    layout: str
    version: int = 1
    flags: int = 0
    mapunit: int = UNIT
    mapsize: int = 0
    doffset: int = 0
    rdoblocks: int = 0
    fingerprint: int = 0
    cowused: int = 0
    magic: int = MAGIC

    def pack(self) -> bytes:
        return _head_format(self.layout).pack(
            self.magic,
            self.version,
            self.flags,
            self.mapunit,
            self.mapsize,
            self.doffset,
            self.rdoblocks,
            self.fingerprint,
            self.cowused,
        )

    @property
    def long_bytes(self) -> int:
        return 8 if self.layout.startswith("64") else 4


def head_for(base: bytes, layout: str = "64-little") -> Head:
    """A clean, empty head for ``base``."""
    blocks = len(base) // UNIT
    mapsize = (blocks + 8 * UNIT - 1) // (8 * UNIT) * UNIT
    doffset = (UNIT + mapsize + 4095) // 4096 * 4096
    return Head(layout, 1, 0, UNIT, mapsize, doffset, blocks, fingerprint(base), 0)


def build(
    base: bytes,
    changed: Mapping[int, bytes],
    layout: str = "64-little",
    *,
    flags: int = 0,
    version: int = 1,
    packed: bool = False,
    compact: bool = False,
    head: Head | None = None,
) -> bytes:
    """A cowfile over ``base`` that holds the 1 KiB blocks ``changed`` (number -> bytes).

    ``packed``: as `cowpack -p` writes it; with ``compact``, as it does so inside of gzip.
    """
    head = head or head_for(base, layout)
    head.cowused = len(changed)
    head.flags = flags | (PACKED if packed else 0)
    head.version = version
    bitmap = bytearray(head.mapsize)
    data = bytearray()
    for number in sorted(changed):
        bitmap[number >> 3] |= 1 << (number & 7)
        block = changed[number]
        if len(block) != UNIT:
            raise ValueError("a block is 1 KiB")
        if packed:
            data += block
        else:
            end = (number + 1) * UNIT
            data.extend(b"\0" * (end - len(data)))
            data[number * UNIT : end] = block
    if compact:
        return head.pack() + bytes(bitmap) + bytes(data)
    front = head.pack().ljust(UNIT, b"\0") + bytes(bitmap)
    return front.ljust(head.doffset, b"\0") + bytes(data)


def merged(base: bytes, changed: Mapping[int, bytes]) -> bytes:
    """What the device reads as: whole 1 KiB blocks of the base, the changed ones replaced."""
    out = bytearray(base[: len(base) // UNIT * UNIT])
    for number, block in changed.items():
        out[number * UNIT : (number + 1) * UNIT] = block
    return bytes(out)


def layout_of(head: bytes) -> str:
    """Which machine wrote a head: found from the magic and where the mapunit lies."""
    for layout in LAYOUTS:
        fields = _head_format(layout).unpack_from(head)
        if fields[0] == MAGIC and fields[3] == UNIT and fields[4] > 0 and fields[4] % UNIT == 0:
            return layout
    raise ValueError("not a cowfile")


@dataclass
class Cowfile:
    """A cowfile read back."""

    head: Head
    bitmap: bytes
    blocks: dict[int, bytes] = field(default_factory=dict)

    @property
    def used(self) -> int:
        return sum(bin(byte).count("1") for byte in self.bitmap)


def set_bits(bitmap: bytes) -> Iterable[int]:
    for at, byte in enumerate(bitmap):
        if byte:
            for bit in range(8):
                if byte >> bit & 1:
                    yield at * 8 + bit


def parse(path: Path | str, *, data: bool = True) -> Cowfile:
    """Reads a cowfile (packed or not) with nothing but the format page."""
    with Path(path).open("rb") as file:
        first = file.read(UNIT)
        layout = layout_of(first)
        magic, version, flags, mapunit, mapsize, doffset, blocks, print_, used = _head_format(
            layout
        ).unpack_from(first)
        head = Head(layout, version, flags, mapunit, mapsize, doffset, blocks, print_, used, magic)
        bitmap = file.read(mapsize)
        cow = Cowfile(head, bitmap)
        if data:
            for rank, number in enumerate(set_bits(bitmap)):
                file.seek(doffset + (rank if flags & PACKED else number) * UNIT)
                cow.blocks[number] = file.read(UNIT).ljust(UNIT, b"\0")
    return cow


def original_refuses(path: Path | str, base: bytes) -> str | None:
    """Why the original driver, on the machine that the file is of, would refuse it; or None."""
    size = Path(path).stat().st_size
    if size < UNIT:
        return "shorter than a head"
    try:
        cow = parse(path, data=False)
    except ValueError as error:
        return str(error)
    head = cow.head
    want = head_for(base, head.layout)
    if head.version > 1:
        return f"version {head.version}"
    if head.flags & PACKED:
        return "packed"
    if head.flags & DIRTY:
        return "dirty"
    if head.rdoblocks != want.rdoblocks:
        return f"rdoblocks {head.rdoblocks}, the base has {want.rdoblocks}"
    if head.fingerprint != want.fingerprint:
        return f"fingerprint {head.fingerprint:#x}, the base's is {want.fingerprint:#x}"
    if (head.mapsize, head.doffset) != (want.mapsize, want.doffset):
        return f"mapsize {head.mapsize} or doffset {head.doffset} is not as it computes them"
    if len(cow.bitmap) < head.mapsize:
        return "bitmap cut short"
    if cow.used != head.cowused:
        return f"cowused {head.cowused}, the bitmap has {cow.used} bits"
    if any(number >= head.rdoblocks for number in set_bits(cow.bitmap)):
        return "a bit beyond the base"
    return None
