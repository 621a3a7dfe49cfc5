"""The files of a disc's UDF part, which knows sizes that ISO 9660 has no room for.

A disc may have both file systems over the same files. Where one is larger than 4 GiB and has not
been given several extents, ISO 9660 holds the lower 32 bits of its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from cowcloop.iso9660.medium import open_medium
from cowcloop.part import Place

if TYPE_CHECKING:
    from pycdlib import PyCdlib
    from pycdlib.udf import UDFFileEntry

#: Offset and length, in bytes.
Extent = tuple[int, int]

#: Bytes that are too many for one extent of ISO 9660.
LARGE = 1 << 32


@dataclass
class LargeFile:
    """A file of 4 GiB or more: its name and, if all are there, its extents."""

    name: str
    extents: list[Extent]


def large_files(path: Place) -> dict[int, LargeFile]:
    """Each file of 4 GiB or more, by the offset of its first extent.

    pycdlib's errors go through.
    """
    from pycdlib import PyCdlib

    with open_medium(path, udf=True) as medium:
        iso = PyCdlib()
        iso.open_fp(cast("BinaryIO", medium))
        start = iso.udf_main_descs.partitions[0].part_start_location
        block = iso.pvd.logical_block_size()
        found = {}
        for entry in _files(iso):
            identifier = entry.file_ident
            if identifier is not None and entry.info_len >= LARGE:
                extents = _extents(entry, start, block)
                whole = sum(length for _, length in extents) == entry.info_len
                name = identifier.fi.decode(identifier.encoding, "replace")
                found[extents[0][0]] = LargeFile(name, extents if whole else [])
        return found


def _files(iso: PyCdlib) -> Iterator[UDFFileEntry]:
    from pycdlib.udf import UDFFileEntry

    for inode in iso.inodes:
        for record, _ in inode.linked_records:
            if isinstance(record, UDFFileEntry):
                yield record


def _extents(entry: UDFFileEntry, start: int, block: int) -> list[Extent]:
    left = entry.info_len
    found: list[Extent] = []
    for piece in entry.alloc_descs:
        length = min(piece.extent_length, left)
        found.append(((start + piece.log_block_num) * block, length))
        left -= length
    return found
