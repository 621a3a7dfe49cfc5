"""An ISO 9660 image's directories, as pycdlib has read them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, BinaryIO, cast

from cowcloop.errors import CowcloopError, ImageFormatError, UnsupportedError
from cowcloop.iso9660 import susp
from cowcloop.iso9660.medium import REMEDY, Medium, open_medium, shown
from cowcloop.iso9660.udf import LARGE, Extent, LargeFile, large_files
from cowcloop.part import Place

if TYPE_CHECKING:
    from pycdlib.dr import DirectoryRecord

# A file has 8 TiB at most, in extents of 4 GiB.
MOST_EXTENTS = 4096
# The flag of an extent that is not the last.
_MORE_EXTENTS = 0x80


@dataclass
class Entry:
    """A file or directory."""

    #: as Rock Ridge has it, else like `plain`
    name: str
    #: as ISO 9660 or Joliet has it, without the version
    plain: str
    #: one for each extent
    records: list[DirectoryRecord]

    @property
    def directory(self) -> bool:
        """Whether it is one."""
        return self.records[0].is_dir()

    @property
    def link(self) -> str | None:
        """Where a symbolic link points to."""
        found = self.records[0].rock_ridge
        return os.fsdecode(found.symlink_path()) if found and found.is_symlink() else None

    @property
    def interleaved(self) -> bool:
        """Whether other bytes lie between its own."""
        return bool(self.records[0].file_unit_size or self.records[0].interleave_gap_size)

    @property
    def compressed(self) -> bool:
        """Whether zisofs has compressed what is stored."""
        found = self.records[0].rock_ridge
        if found is None:
            return False
        areas = filter(None, (found.dr_entries, found.ce_entries))
        return any(pad.padding[:2] == susp.ZISOFS for area in areas for pad in area.pd_records)

    @property
    def extents(self) -> list[Extent]:
        """Offset and length of each, in bytes; none, if not all are there."""
        if self.records[-1].file_flags & _MORE_EXTENTS or len(self.records) > MOST_EXTENTS:
            return []
        block = self.records[0].vd.logical_block_size()
        # The extended attributes come first in the extent.
        return [
            ((record.extent_location() + record.xattr_len) * block, record.data_length)
            for record in self.records
        ]

    def entries(self) -> Iterator[Entry]:
        """What a directory holds, itself and its parent left out."""
        records = (record for record in self.records[0].children if not _is_hidden(record))
        # The extents of a file are neighbours.
        for identifier, group in groupby(records, lambda each: each.file_identifier()):
            extents = list(group)
            # Before 1.16 pycdlib has those behind the first backwards.
            if len(extents) > 2 and extents[1].data_continuation is None:
                extents[1:] = reversed(extents[1:])
            joliet = extents[0].vd.encoding == "utf-16_be"
            text = identifier.decode("utf-16-be", "replace") if joliet else os.fsdecode(identifier)
            name = plain = without_version(text)
            rock_ridge = extents[0].rock_ridge
            if rock_ridge is not None:
                if rock_ridge.name() != identifier:
                    name = os.fsdecode(rock_ridge.name())
                if rock_ridge.cl_to_moved_dr is not None:
                    extents = [rock_ridge.cl_to_moved_dr]
            if name not in ("", ".", "..") and not {"/", "\0"} & set(name):
                yield Entry(name, plain, extents)


@dataclass
class Disc:
    """An image whose directories have been read."""

    path: Place
    size: int
    volume: str
    #: the primary tree's, and Joliet's where there is one
    roots: list[Entry]
    #: what UDF says about files that are too large for ISO 9660, as `large_files` has them
    large: dict[int, LargeFile]
    #: what was left out of it, in words
    left_out: list[str] = field(default_factory=list)

    def extents(self, entry: Entry) -> list[Extent]:
        """A file's, as ISO 9660 has them, or UDF where only that knows its size."""
        found = entry.extents
        known = self.large.get(found[0][0]) if found else None
        size = sum(length for _, length in found)
        if known is None or size >= LARGE:
            return found
        # Files that are empty lie anywhere, and 4 GiB sharp seem to be none.
        if size == 0 and known.name.casefold() not in (
            entry.name.casefold(),
            entry.plain.casefold(),
        ):
            return found
        return known.extents

    @property
    def best(self) -> Entry:
        """The root of the tree with the names that users gave."""
        rock_ridge = any(each.rock_ridge for each in self.roots[0].records[0].children)
        return self.roots[0] if rock_ridge else self.roots[-1]

    def lies_within(self, extents: Iterable[tuple[int, int]]) -> bool:
        """Whether all of a file's bytes are there."""
        return all(offset + length <= self.size for offset, length in extents)


@contextmanager
def open_disc(path: Place) -> Iterator[Disc]:
    """Read a disc's directories; every failure, then and later, becomes one of our errors."""
    with open_medium(path) as medium:
        if not medium.is_iso9660():
            message = "not an ISO 9660 image: only in one can a path be named"
            raise ImageFormatError(f"{path}: {message}")
        try:
            yield _read(medium)
        except (CowcloopError, OSError):
            raise
        except Exception as error:
            reason = shown(str(error)) or type(error).__name__
            message = f"damaged ISO 9660 image, or one that pycdlib cannot read ({reason})"
            raise ImageFormatError(f"{path}: {message}: {REMEDY}") from None


def _read(medium: Medium) -> Disc:
    # It takes a while, which most commands need not.
    try:
        from pycdlib import PyCdlib
    except ImportError:
        message = "pycdlib is needed to read it: install that Python package"
        text = f"{medium.path}: {message}"
        raise UnsupportedError(errno.ENOSYS, text, str(medium.path)) from None

    iso = PyCdlib()
    iso.open_fp(cast("BinaryIO", medium))
    roots = [Entry("/", "/", [iso.pvd.root_directory_record()])]
    if iso.joliet_vd is not None:
        roots.append(Entry("/", "/", [iso.joliet_vd.root_directory_record()]))
    volume = os.fsdecode(iso.pvd.volume_identifier).strip(" \0")
    disc = Disc(medium.path, medium.size, volume, roots, {})
    if medium.unknown:
        names = ", ".join(sorted(os.fsdecode(name) for name in medium.unknown))
        disc.left_out.append(f"what its records of the kind {names} say was skipped")
    if medium.has_udf:
        _read_udf(disc)
    return disc


def _read_udf(disc: Disc) -> None:
    try:
        disc.large.update(large_files(disc.path))
    except OSError:
        raise
    except Exception as error:
        reason = shown(str(error)) or type(error).__name__
        message = f"its UDF file system was skipped ({reason})"
        disc.left_out.append(f"{message}: files of more than 4 GiB may seem too short")


def _is_hidden(record: DirectoryRecord) -> bool:
    """Whether it is no entry of its own: a resource fork, or shown where another record says."""
    if record.is_dot() or record.is_dotdot() or record.is_associated_file():
        return True
    return record.rock_ridge is not None and record.rock_ridge.relocated_record()


def without_version(name: str) -> str:
    """A plain name as users write it: `KNOPPIX.;1` is KNOPPIX."""
    stem, semicolon, version = name.rpartition(";")
    if semicolon and version.isdigit():
        name = stem
    # One without an extension ends with the dot.
    return name.removesuffix(".") or name
