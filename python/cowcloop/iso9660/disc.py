"""An ISO 9660 image: its directory trees, and the way to a file in them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from types import TracebackType

from cowcloop.errors import (
    ImageFormatError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
)
from cowcloop.iso9660.medium import SECTOR, Medium
from cowcloop.iso9660.records import Entry, Tree, shown, without_version

_FIRST_DESCRIPTOR = 16
# More than any disc has.
_MOST_DESCRIPTORS = 64
_PRIMARY, _SUPPLEMENTARY, _LAST = 1, 2, 255
_JOLIET = (b"%/@", b"%/C", b"%/E")
_ROOT_RECORD = slice(156, 190)

# Longer paths are left out of a list: no program makes them.
_LONGEST_PATH = 1024
# Names of a directory that a misspelt one is compared with, and those that are told.
_MOST_NAMES = 1000
_TOLD = 4


def is_iso9660(path: str) -> bool:
    """Whether a file or block device is an ISO 9660 image, by its first descriptor."""
    medium = Medium(path)
    try:
        at = _FIRST_DESCRIPTOR * SECTOR
        return medium.size >= at + SECTOR and medium.read(at + 1, 5) == b"CD001"
    finally:
        medium.close()


class Disc:
    """An open image; `path` is what messages call it. A context manager."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.volume = ""
        self._medium = Medium(path)
        try:
            self.trees = self._trees()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Size of the image in bytes."""
        return self._medium.size

    def close(self) -> None:
        """Close the file."""
        self._medium.close()

    def __enter__(self) -> Disc:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def pieces(self, inside: str) -> tuple[tuple[int, int], ...]:
        """Offset and length, in bytes, of each piece of the file at this path in the image.

        A name is looked for as Rock Ridge, Joliet and plain ISO 9660 have it, then without regard
        to upper and lower case, as Linux shows plain names in lower case.
        """
        whole = f"{self.path}:{inside}"
        names = [name for name in inside.split("/") if name not in ("", ".")]
        if ".." in names:
            raise InvalidInputError(f"{shown(whole)}: write the path without '..'")
        for exactly in (True, False):
            for tree in self.trees:
                entry = self._walk(tree, names, exactly, whole)
                if entry is not None:
                    return self._pieces_of(tree, entry, whole)
        raise self._not_found(names, whole)

    def files(self) -> Iterator[tuple[str, Entry]]:
        """Every file that can be read, with its path, as its best names are."""
        tree = self._best()
        # By their places: a directory that holds itself is walked once.
        seen = {tree.root.pieces[0][0]}
        waiting = [("", tree.root)]
        while waiting:
            folder, directory = waiting.pop()
            for entry in tree.entries(directory):
                path = f"{folder}/{entry.name}"
                if len(path) > _LONGEST_PATH:
                    continue
                if not entry.directory:
                    if entry.link is None and entry.obstacle is None:
                        yield path, entry
                elif entry.pieces[0][0] not in seen:
                    seen.add(entry.pieces[0][0])
                    waiting.append((path, entry))

    def lies_within(self, entry: Entry) -> bool:
        """Whether all of a file's bytes are there."""
        return all(offset + length <= self.size for offset, length in entry.pieces)

    def _trees(self) -> list[Tree]:
        """The primary tree, and Joliet's where there is one."""
        primary: Tree | None = None
        others = []
        for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _MOST_DESCRIPTORS):
            if (number + 1) * SECTOR > self.size:
                break
            sector = self._medium.read(number * SECTOR, SECTOR)
            if sector[1:6] != b"CD001" or sector[0] == _LAST:
                break
            joliet = sector[0] == _SUPPLEMENTARY and sector[88:91] in _JOLIET
            if not joliet and (sector[0] != _PRIMARY or primary is not None):
                continue
            block = int.from_bytes(sector[128:130], "little")
            if block not in (512, 1024, 2048):
                if joliet:
                    continue
                message = f"logical blocks of {block} bytes, not 512, 1024 or 2048"
                raise ImageFormatError(f"{self.path}: damaged ISO 9660 image: {message}")
            tree = Tree(self._medium, block, joliet=joliet)
            tree.start(sector[_ROOT_RECORD])
            if joliet:
                others.append(tree)
            else:
                primary = tree
                self.volume = os.fsdecode(sector[40:72]).strip(" \0")
        if primary is None:
            message = "not an ISO 9660 image: only in one can a path be named"
            raise ImageFormatError(f"{self.path}: {message}")
        return [primary, *others]

    def _best(self) -> Tree:
        """The tree with the names that people gave."""
        return self.trees[0] if self.trees[0].rock_ridge is not None else self.trees[-1]

    def _walk(self, tree: Tree, names: list[str], exactly: bool, whole: str) -> Entry | None:
        entry = tree.root
        for depth, name in enumerate(names):
            if not entry.directory:
                return None
            found = _pick(tree.entries(entry), name, exactly)
            if found is None:
                return None
            entry = found
            if entry.link is not None:
                place = "/" + "/".join(names[: depth + 1])
                message = f"{shown(place)} is a symbolic link to {shown(entry.link)}"
                raise InvalidInputError(f"{shown(whole)}: {message}: name the file itself")
        return entry

    def _pieces_of(self, tree: Tree, entry: Entry, whole: str) -> tuple[tuple[int, int], ...]:
        if entry.directory:
            holds = _some(found.name for found in tree.entries(entry))
            message = f"this is a directory: name a file in it ({holds})"
            raise InvalidInputError(f"{shown(whole)}: {message}")
        if entry.obstacle is not None:
            message = f"it {entry.obstacle}: mount the image, or copy the file out of it"
            raise UnsupportedError(errno.EOPNOTSUPP, f"{shown(whole)}: {message}")
        if entry.size == 0:
            raise ImageFormatError(f"{shown(whole)}: the file is empty: it holds no image")
        if not self.lies_within(entry):
            message = f"lies beyond the end of {self.path}, at {self.size} bytes: copy that again"
            raise ImageFormatError(f"{shown(whole)}: {message}")
        pieces: list[tuple[int, int]] = []
        for offset, length in entry.pieces:
            if pieces and sum(pieces[-1]) == offset:
                pieces[-1] = (pieces[-1][0], pieces[-1][1] + length)
            elif length:
                pieces.append((offset, length))
        return tuple(pieces)

    def _not_found(self, names: list[str], whole: str) -> NotFoundError:
        """What there is instead, where the path ends."""
        tree = self._best()
        entry, reached, hint = tree.root, "", ""
        for name in names:
            held = [found.name for found in islice(tree.entries(entry), _MOST_NAMES)]
            found = _pick(tree.entries(entry), name, exactly=False)
            if found is not None and found.directory:
                entry, reached = found, f"{reached}/{found.name}"
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
        message = f"{shown(whole)}: no such file in the ISO image: {shown(hint)}"
        return NotFoundError(errno.ENOENT, message)


def _pick(entries: Iterable[Entry], name: str, exactly: bool) -> Entry | None:
    """The entry of this name: Rock Ridge's comes before the plain one, that before other cases."""
    plain: Entry | None = None
    similar: Entry | None = None
    folded = {name.casefold(), without_version(name).casefold()}
    for entry in entries:
        if entry.name == name:
            return entry
        if plain is None and entry.plain == name:
            plain = entry
        elif similar is None and folded & {entry.name.casefold(), entry.plain.casefold()}:
            similar = entry
    return plain if exactly else plain or similar


def _some(names: Iterable[str]) -> str:
    """A few of the names, and whether there are more."""
    told = list(islice(names, _TOLD + 1))
    words = ", ".join(shown(name) for name in told[:_TOLD])
    return (words + ", ..." if len(told) > _TOLD else words) or "nothing"
