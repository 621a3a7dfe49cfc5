"""Files inside an ISO 9660 image: where their bytes lie. Nothing is mounted or copied.

pycdlib reads the directories, all of them before it answers, and is made for sound discs. Here it
is held to a limit, and whatever it raises becomes one of our errors.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from . import _core
from .errors import (
    CowcloopError,
    ImageFormatError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
    from_engine,
)
from .source import Part

if TYPE_CHECKING:
    from pycdlib.dr import DirectoryRecord

__all__ = ["contents", "is_iso9660", "pieces", "shown"]

_REMEDY = "mount it, or copy the image out of it"

_SECTOR = 2048
_SYSTEM_AREA = 16 * _SECTOR

# What may be read of an image, so that a hostile one costs little: in all, and at least by each
# read, as many small ones take time as well. pycdlib takes some thirty times as much memory.
_MOST_READ = 16 << 20
_LEAST_READ = 128
# Processor time for all of it. Where a directory is not in order, pycdlib takes its square.
_MOST_SECONDS = 60
# A file has 8 TiB at most, in extents of 4 GiB.
_MOST_EXTENTS = 4096
# The flag of an extent that is not the last.
_MORE_EXTENTS = 0x80

# A header and an index of one block; smaller files are not looked into.
_LEAST_IMAGE = 136 + 16
# More files than this are not looked into, nor those with longer paths.
_MOST_FILES = 100_000
_LONGEST_PATH = 1024
# Names of a directory that a misspelt one is compared with, and those that are told.
_MOST_NAMES = 1000
_TOLD = 4


def is_iso9660(path: str) -> bool:
    """Whether a file or block device is an ISO 9660 image, by its first descriptor."""
    with _medium(path) as medium:
        return medium.is_iso9660()


def pieces(path: str, inside: str) -> tuple[tuple[int, int], ...]:
    """Offset and length, in bytes, of each piece of the file at a path in an ISO 9660 image.

    A name is looked for as Rock Ridge, Joliet and plain ISO 9660 have it, then without regard to
    upper and lower case, as Linux shows plain names in lower case.
    """
    whole = f"{shown(path)}:{shown(inside)}"
    names = [name for name in inside.split("/") if name not in ("", ".")]
    if ".." in names:
        raise InvalidInputError(f"{whole}: write the path without '..'")
    with _disc(path) as disc:
        for exactly in (True, False):
            for tree in disc.trees:
                entry = _walk(tree, names, exactly, whole)
                if entry is not None:
                    return _pieces_of(disc, tree, entry, whole)
        raise _not_found(disc.best, names, whole)


def contents(path: str) -> dict[str, Any]:
    """What `cowcloop info` tells of an ISO 9660 image.

    `images`: for each cloop or uzip image what `_core.image_info` says; where that fails, "path",
    "file_size" and "error". `problem`: why not all files could be looked at, or None.
    """
    volume, files, problem = "", [], None
    with _medium(path) as medium:
        size = medium.size
    try:
        with _disc(path) as disc:
            volume = disc.volume
            files = list(islice(_files(disc), _MOST_FILES + 1))
    except ImageFormatError as error:
        problem = str(error)
    if len(files) > _MOST_FILES:
        problem = f"{path}: only the first {_MOST_FILES} files were looked into"
    # In the order of their places: a drive need not seek to and fro.
    parts = sorted(files[:_MOST_FILES], key=lambda part: part.ranges[0])
    images = [_image(part) for part in parts]
    return {
        "type": "iso9660",
        "path": path,
        "size": size,
        "volume": volume,
        "images": [image for image in images if image is not None],
        "problem": problem,
    }


def shown(name: str) -> str:
    """A name from an image, fit for a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


class _Medium:
    """The image, as the file that pycdlib reads."""

    def __init__(self, path: str, file: int) -> None:
        self.path = path
        self.size = os.lseek(file, 0, os.SEEK_END)
        self._file = file
        self._at = 0
        self._left = _MOST_READ
        self._until = time.thread_time() + _MOST_SECONDS

    def is_iso9660(self) -> bool:
        """Whether the first descriptor is there, and is one."""
        whole = self.size >= _SYSTEM_AREA + _SECTOR
        return whole and self._pread(5, _SYSTEM_AREA + 1) == b"CD001"

    def read(self, length: int) -> bytes:
        """At most so many bytes, from where it stands."""
        self._left -= max(length, _LEAST_READ)
        if self._left < 0:
            raise self._too_much(f"it has more than {_MOST_READ >> 20} MiB of directories")
        # What is there to start a computer is neither needed nor judged.
        data = bytes(length) if self._at < _SYSTEM_AREA else self._pread(length, self._at)
        self._at += len(data)
        return _Watched(data, self.check_time)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go there. The end seems to be far away: pycdlib shortens the files beyond it."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: 1 << 62}[whence]
        return self._at

    def tell(self) -> int:
        """Where it stands."""
        return self._at

    def check_time(self) -> None:
        """Raise ImageFormatError when it takes too long."""
        if time.thread_time() > self._until:
            raise self._too_much(f"its directories take more than {_MOST_SECONDS} seconds to read")

    def _too_much(self, what: str) -> ImageFormatError:
        return ImageFormatError(f"{self.path}: {what}: {_REMEDY}")

    def _pread(self, length: int, offset: int) -> bytes:
        return os.pread(self._file, length, offset) if offset < self.size else b""


class _Watched(bytes):
    """Data that pycdlib takes a directory's records from, each in its turn and in time."""

    _check: Callable[[], None]

    def __new__(cls, data: bytes, check: Callable[[], None]) -> _Watched:
        made = super().__new__(cls, data)
        made._check = check
        return made

    def __getitem__(self, key: Any) -> Any:
        self._check()
        return super().__getitem__(key)


@dataclass
class _Entry:
    """A file or directory."""

    #: as Rock Ridge has it, else like `plain`
    name: str
    #: as ISO 9660 or Joliet has it, without the version
    plain: str
    #: one for each extent
    records: list[DirectoryRecord]

    @property
    def record(self) -> DirectoryRecord:
        """The first."""
        return self.records[0]

    @property
    def interleaved(self) -> bool:
        """Whether other bytes lie between its own."""
        return bool(self.record.file_unit_size or self.record.interleave_gap_size)


@dataclass
class _Tree:
    """One of a disc's directory trees."""

    root: DirectoryRecord
    #: names are UTF-16
    joliet: bool

    def entries(self, directory: DirectoryRecord) -> Iterator[_Entry]:
        """What a directory holds, itself and its parent left out."""
        records = (record for record in directory.children if not _is_hidden(record))
        # The extents of a file are neighbours.
        for identifier, group in groupby(records, lambda each: each.file_identifier()):
            extents = list(group)
            # Before 1.16 pycdlib has those behind the first backwards.
            if len(extents) > 2 and extents[1].data_continuation is None:
                extents[1:] = reversed(extents[1:])
            if self.joliet:
                plain = _without_version(identifier.decode("utf-16-be", errors="replace"))
            else:
                plain = _without_version(os.fsdecode(identifier))
            name = plain
            rock_ridge = extents[0].rock_ridge
            if rock_ridge is not None:
                if rock_ridge.name() != identifier:
                    name = os.fsdecode(rock_ridge.name())
                if rock_ridge.cl_to_moved_dr is not None:
                    extents = [rock_ridge.cl_to_moved_dr]
            if name not in ("", ".", "..") and not {"/", "\0"} & set(name):
                yield _Entry(name, plain, extents)


@dataclass
class _Disc:
    """An image whose directories have been read."""

    medium: _Medium
    volume: str
    #: bytes of a logical block
    block: int
    #: the primary tree, and Joliet's where there is one
    trees: list[_Tree]

    @property
    def best(self) -> _Tree:
        """The tree with the names that people gave."""
        rock_ridge = any(record.rock_ridge for record in self.trees[0].root.children)
        return self.trees[0] if rock_ridge else self.trees[-1]

    def extents(self, entry: _Entry) -> list[tuple[int, int]] | None:
        """Offset and length of each of a file's extents, in bytes; None: not all are there."""
        if entry.records[-1].file_flags & _MORE_EXTENTS or len(entry.records) > _MOST_EXTENTS:
            return None
        # The extended attributes come first in the extent.
        return [
            ((record.extent_location() + record.xattr_len) * self.block, record.data_length)
            for record in entry.records
        ]

    def lies_within(self, extents: list[tuple[int, int]]) -> bool:
        """Whether all of a file's bytes are there."""
        return all(offset + length <= self.medium.size for offset, length in extents)


@contextmanager
def _medium(path: str) -> Iterator[_Medium]:
    file = -1
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise InvalidInputError(f"{path}: neither a file nor a block device")
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        yield _Medium(path, file)
    except CowcloopError:
        raise
    except OSError as error:
        number = error.errno or errno.EIO
        raise from_engine("io", number, f"{path}: {os.strerror(number)}") from None
    finally:
        if file >= 0:
            os.close(file)


@contextmanager
def _disc(path: str) -> Iterator[_Disc]:
    """Read a disc's directories; all that goes wrong then and later is told as our error."""
    with _medium(path) as medium:
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
            raise ImageFormatError(f"{path}: {message}: {_REMEDY}") from None


def _read(medium: _Medium) -> _Disc:
    # It takes a while, which most commands need not.
    from pycdlib import PyCdlib

    iso = PyCdlib()
    iso.open_fp(cast("BinaryIO", medium))
    trees = [_Tree(iso.pvd.root_directory_record(), joliet=False)]
    if iso.joliet_vd is not None:
        trees.append(_Tree(iso.joliet_vd.root_directory_record(), joliet=True))
    volume = os.fsdecode(iso.pvd.volume_identifier).strip(" \0")
    return _Disc(medium, volume, iso.pvd.logical_block_size(), trees)


def _walk(tree: _Tree, names: list[str], exactly: bool, whole: str) -> _Entry | None:
    entry = _Entry("/", "/", [tree.root])
    for depth, name in enumerate(names):
        if not entry.record.is_dir():
            return None
        found = _pick(tree.entries(entry.record), name, exactly)
        if found is None:
            return None
        entry = found
        rock_ridge = entry.record.rock_ridge
        if rock_ridge is not None and rock_ridge.is_symlink():
            place = shown("/" + "/".join(names[: depth + 1]))
            target = shown(os.fsdecode(rock_ridge.symlink_path()))
            message = f"{place} is a symbolic link to {target}: name the file itself"
            raise InvalidInputError(f"{whole}: {message}")
    return entry


def _pick(entries: Iterable[_Entry], name: str, exactly: bool) -> _Entry | None:
    """The entry of this name: Rock Ridge's comes before the plain one, that before other cases."""
    plain: _Entry | None = None
    similar: _Entry | None = None
    folded = {name.casefold(), _without_version(name).casefold()}
    for entry in entries:
        if entry.name == name:
            return entry
        if plain is None and entry.plain == name:
            plain = entry
        elif similar is None and folded & {entry.name.casefold(), entry.plain.casefold()}:
            similar = entry
    return plain if exactly else plain or similar


def _pieces_of(disc: _Disc, tree: _Tree, entry: _Entry, whole: str) -> tuple[tuple[int, int], ...]:
    if entry.record.is_dir():
        holds = _some(found.name for found in tree.entries(entry.record))
        raise InvalidInputError(f"{whole}: this is a directory: name a file in it ({holds})")
    if entry.interleaved:
        message = "it is stored interleaved: mount the image, or copy the file out of it"
        raise UnsupportedError(errno.EOPNOTSUPP, f"{whole}: {message}")
    extents = disc.extents(entry)
    if extents is None:
        message = f"its extents are not complete, or more than {_MOST_EXTENTS}"
        raise ImageFormatError(f"{whole}: {message}: copy the disc again")
    found: list[tuple[int, int]] = []
    for offset, length in extents:
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        elif length:
            found.append((offset, length))
    if not found:
        raise ImageFormatError(f"{whole}: the file is empty: it holds no image")
    if not disc.lies_within(found):
        message = f"lies beyond the end of {disc.medium.path}, at {disc.medium.size} bytes"
        raise ImageFormatError(f"{whole}: {message}: copy that again")
    return tuple(found)


def _not_found(tree: _Tree, names: list[str], whole: str) -> NotFoundError:
    """What there is instead, where the path ends."""
    directory, reached, hint = tree.root, "", ""
    for name in names:
        held = [entry.name for entry in islice(tree.entries(directory), _MOST_NAMES)]
        found = _pick(tree.entries(directory), name, exactly=False)
        if found is not None and found.record.is_dir():
            directory, reached = found.record, f"{reached}/{found.name}"
            continue
        near = get_close_matches(name, held, n=2, cutoff=0.5)
        there = " or ".join(f"{reached}/{each}" for each in near)
        if found is not None:
            hint = f"{reached}/{found.name} is a file"
        elif near:
            hint = f"did you mean {there}?"
        else:
            hint = f"{reached or '/'} holds {_some(held)}"
        break
    message = f"{whole}: no such file in the ISO image: {shown(hint)}"
    return NotFoundError(errno.ENOENT, message)


def _files(disc: _Disc) -> Iterator[Part]:
    """Every file that can be read and may be an image, as its best names are."""
    tree = disc.best
    # A relocated directory may be shown below itself.
    seen = {id(tree.root)}
    waiting = [("", tree.root)]
    while waiting:
        folder, directory = waiting.pop()
        for entry in tree.entries(directory):
            inside = f"{folder}/{entry.name}"
            if len(inside) > _LONGEST_PATH:
                continue
            if entry.record.is_dir():
                if id(entry.record) not in seen:
                    seen.add(id(entry.record))
                    waiting.append((inside, entry.record))
            elif not (entry.record.is_symlink() or entry.interleaved):
                extents = disc.extents(entry) or []
                large = sum(length for _, length in extents) >= _LEAST_IMAGE
                if large and disc.lies_within(extents):
                    path = disc.medium.path
                    yield Part(path, tuple(extents), f"{path}:{inside}")


def _image(part: Part) -> dict[str, Any] | None:
    try:
        if _core.sniff(part) != "cloop":
            return None
        # The name as it is: the engine's need not be.
        return {**_core.image_info(part), "path": part.name}
    except CowcloopError as error:
        size = sum(length for _, length in part.ranges)
        return {"type": "cloop", "path": part.name, "file_size": size, "error": str(error)}


def _is_hidden(record: DirectoryRecord) -> bool:
    """Whether it is no entry of its own: a resource fork, or shown where another record says."""
    if record.is_dot() or record.is_dotdot() or record.is_associated_file():
        return True
    return record.rock_ridge is not None and record.rock_ridge.relocated_record()


def _without_version(name: str) -> str:
    """A plain name as people write it: `KNOPPIX.;1` is KNOPPIX."""
    stem, semicolon, version = name.rpartition(";")
    if semicolon and version.isdigit():
        name = stem
    # One without an extension ends with the dot.
    return name.removesuffix(".") or name


def _some(names: Iterable[str]) -> str:
    """A few of the names, and whether there are more."""
    told = list(islice(names, _TOLD + 1))
    words = ", ".join(shown(name) for name in told[:_TOLD])
    return (words + ", ..." if len(told) > _TOLD else words) or "nothing"
