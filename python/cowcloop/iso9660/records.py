"""Directory records, with what Rock Ridge adds to them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from cowcloop.errors import ImageFormatError
from cowcloop.iso9660 import rock_ridge
from cowcloop.iso9660.medium import SECTOR, Medium

# length, blocks of extended attributes, block (little-endian), data length (little-endian),
# flags, file unit size, interleave gap size, length of the identifier
_RECORD = struct.Struct("<BBI4xI4x7xBBB4xB")
_FIXED = _RECORD.size

_ASSOCIATED = 0x04
_DIRECTORY = 0x02
_MORE_EXTENTS = 0x80

# A file has 8 TiB at most, in pieces of 4 GiB: what has more pieces than this is no such file.
_MOST_PIECES = 4096


@dataclass
class Entry:
    """A file or directory."""

    #: as Rock Ridge has it, else like `plain`
    name: str
    #: as ISO 9660 or Joliet has it, without the version
    plain: str
    directory: bool
    #: offset and length of each piece, in bytes
    pieces: list[tuple[int, int]]
    #: where a symbolic link points to
    link: str | None = None
    #: why its bytes do not simply lie there
    obstacle: str | None = None
    #: more pieces follow in the next record
    unfinished: bool = False

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(length for _, length in self.pieces)


@dataclass
class Tree:
    """One of a disc's directory trees."""

    medium: Medium
    #: bytes of a logical block
    block: int
    root: Entry = field(init=False)
    #: names are UTF-16
    joliet: bool = False
    #: where Rock Ridge begins in the space for it; None: there is none
    rock_ridge: int | None = None

    def __post_init__(self) -> None:
        self.root = Entry("/", "/", True, [])

    def start(self, record: bytes) -> None:
        """Take the root directory's record, as the volume descriptor has it."""
        self.root = self._entry(record, "/")
        self.root.directory = True
        if not self.joliet:
            first = next(self._raw(self.root), b"")
            self.rock_ridge = rock_ridge.start(_system_use(first)) if first else None

    def entries(self, directory: Entry) -> Iterator[Entry]:
        """What a directory holds, itself and its parent left out."""
        unfinished: Entry | None = None
        for record in self._raw(directory):
            identifier = _identifier(record)
            flags = record[25]
            if identifier in (b"\0", b"\1") or flags & _ASSOCIATED:
                continue
            entry = self._entry(record, self._text(identifier))
            if not (self._add_rock_ridge(entry, record) and _is_name(entry.name)):
                continue
            if unfinished is not None:
                if entry.plain != unfinished.plain or entry.directory:
                    raise self._damaged(f"{shown(unfinished.name)} lacks its last extent")
                unfinished.pieces += entry.pieces
                if len(unfinished.pieces) > _MOST_PIECES:
                    raise self._damaged(f"{shown(entry.name)} has more than {_MOST_PIECES} extents")
                unfinished.unfinished = entry.unfinished
                unfinished.obstacle = unfinished.obstacle or entry.obstacle
                entry = unfinished
            unfinished = entry if entry.unfinished else None
            if unfinished is None:
                yield entry
        if unfinished is not None:
            raise self._damaged(f"{shown(unfinished.name)} lacks its last extent")

    def _raw(self, directory: Entry) -> Iterator[bytes]:
        """The records as they are; none crosses a sector."""
        for start, length in directory.pieces:
            for at in range(start, start + length, SECTOR):
                sector = self.medium.read(at, min(SECTOR, start + length - at))
                position = 0
                while position < len(sector):
                    size = sector[position]
                    if size == 0:
                        # The rest of the block is not used.
                        position += self.block - position % self.block
                        continue
                    record = sector[position : position + size]
                    if len(record) < max(size, _FIXED + 1) or _FIXED + record[32] > size:
                        raise self._damaged(f"bad directory record at offset {at + position}")
                    yield record
                    position += size

    def _entry(self, record: bytes, name: str) -> Entry:
        _, attributes, block, length, flags, unit, gap, _ = _RECORD.unpack_from(record)
        obstacle = "is stored interleaved" if unit or gap else None
        return Entry(
            name=name,
            plain=name,
            directory=bool(flags & _DIRECTORY),
            # The extended attributes come first in the extent.
            pieces=[((block + attributes) * self.block, length)],
            obstacle=obstacle,
            unfinished=bool(flags & _MORE_EXTENTS),
        )

    def _text(self, identifier: bytes) -> str:
        if self.joliet:
            name = identifier.decode("utf-16-be", errors="replace")
        else:
            name = os.fsdecode(identifier)
        return without_version(name)

    def _add_rock_ridge(self, entry: Entry, record: bytes) -> bool:
        """Add what Rock Ridge says; False where the entry is shown elsewhere."""
        if self.rock_ridge is None:
            return True
        area = _system_use(record)[self.rock_ridge :]
        found = rock_ridge.parse(area, self.medium, self.block)
        if found.relocated:
            return False
        entry.name = found.name or entry.plain
        entry.link = found.link
        if found.compressed:
            entry.obstacle = "is compressed by the ISO image itself (zisofs)"
        if found.child is not None:
            at = found.child * self.block
            entry.directory = True
            # Its length is in its own first record.
            first = next(self._raw(Entry("", "", True, [(at, SECTOR)])), None)
            if first is None or _identifier(first) != b"\0":
                raise self._damaged(f"{shown(entry.name)} leads to no directory")
            entry.pieces = self._entry(first, "").pieces
        return True

    def _damaged(self, what: str) -> ImageFormatError:
        return ImageFormatError(f"{self.medium.path}: damaged ISO 9660 image: {what}")


def without_version(name: str) -> str:
    """A plain name as people write it: `KNOPPIX.;1` is KNOPPIX."""
    stem, semicolon, version = name.rpartition(";")
    if semicolon and version.isdigit():
        name = stem
    # One without an extension ends with the dot.
    return name.removesuffix(".") or name


def shown(name: str) -> str:
    """A name from an image, fit for a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and not {"/", "\0"} & set(name)


def _identifier(record: bytes) -> bytes:
    return record[_FIXED : _FIXED + record[32]]


def _system_use(record: bytes) -> bytes:
    """What follows the identifier, which is padded to an even offset."""
    end = _FIXED + record[32]
    return record[end + end % 2 :]
