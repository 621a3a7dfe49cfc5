"""The compressed images that an ISO 9660 image holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cowcloop import _core
from cowcloop.errors import CowcloopError, ImageFormatError
from cowcloop.iso9660.disc import Disc, Entry, open_disc
from cowcloop.iso9660.medium import open_medium
from cowcloop.part import Part, Place

# A header and an index of one block; smaller files are not looked into.
_LEAST_IMAGE = 136 + 16
# More files than this are not looked into, nor those with longer paths.
_MOST_FILES = 100_000
_LONGEST_PATH = 1024


def contents(path: Place) -> dict[str, Any]:
    """What `cowcloop info` tells of an ISO 9660 image.

    `images`: for each cloop or uzip image what `_core.image_info` says; where that fails, "image",
    "path", "file_size" and "error". `skipped`: "path" and "reason" of each file that could not be
    looked into. `problem`: what else was skipped, in words, or None. `readable`: whether the
    directories could be read.
    """
    found = _Found(path)
    volume, readable, problems = "", True, []
    with open_medium(path) as medium:
        size = medium.size
    try:
        with open_disc(path) as disc:
            volume = disc.volume
            problems = [f"{path}: {each}" for each in disc.left_out]
            if not found.all_files(disc):
                problems.append(f"{path}: only the first {_MOST_FILES} files were looked into")
    except ImageFormatError as error:
        problems = [str(error)]
        readable = False
    # In the order of their places: a drive need not seek to and fro.
    images = map(_image, sorted(found.parts, key=lambda part: part.ranges[0]))
    return {
        "type": "iso9660",
        "path": str(path),
        "size": size,
        "volume": volume,
        "images": [image for image in images if image is not None],
        "skipped": found.skipped,
        "problem": "; ".join(problems) or None,
        "readable": readable,
    }


class _Found:
    """The files of a disc: those that may be images, and those that cannot be looked into."""

    def __init__(self, path: Place) -> None:
        self.parts: list[Part] = []
        self.skipped: list[dict[str, str]] = []
        self._path = path

    def all_files(self, disc: Disc) -> bool:
        """Find them, by their best names; False when there are more than are looked into."""
        for number, (inside, entry) in enumerate(_files(disc)):
            if number == _MOST_FILES:
                return False
            reason = _why_not(disc, entry, inside)
            if reason is not None:
                self.skipped.append({"path": f"{self._path}:{inside}", "reason": reason})
                continue
            whole = self._path if isinstance(self._path, Part) else Part(self._path, (), "")
            name = f"{self._path}:{inside}"
            part = replace(whole, ranges=tuple(disc.extents(entry)), name=name)
            if _size(part) >= _LEAST_IMAGE:
                self.parts.append(part)
        return True


def _why_not(disc: Disc, entry: Entry, inside: str) -> str | None:
    """Why a file cannot be looked into, if so."""
    if len(inside) > _LONGEST_PATH:
        return f"its path is longer than {_LONGEST_PATH}"
    if entry.compressed:
        return "zisofs has compressed it"
    if entry.interleaved:
        return "it is stored interleaved"
    extents = disc.extents(entry)
    if not extents:
        return "its extents are not complete"
    return None if disc.lies_within(extents) else "it lies beyond the end of the disc"


def _files(disc: Disc) -> Iterator[tuple[str, Entry]]:
    """The path and entry of every file."""
    waiting = [("", disc.best)]
    # A relocated directory may be shown below itself.
    seen = set()
    while waiting:
        folder, directory = waiting.pop()
        if id(directory.records[0]) in seen:
            continue
        seen.add(id(directory.records[0]))
        for entry in directory.entries():
            inside = f"{folder}/{entry.name}"
            if entry.directory and len(inside) <= _LONGEST_PATH:
                waiting.append((inside, entry))
            elif entry.directory or entry.link is None:
                yield inside, entry


def _image(part: Part) -> dict[str, Any] | None:
    names = {"image": part.name, "path": part.name}
    try:
        if _core.sniff(part) != "cloop":
            return None
        # The name as it is: the engine's need not be.
        return {**_core.image_info(part), **names}
    except CowcloopError as error:
        failed = {"type": "cloop", "file_size": _size(part), "error": str(error)}
        return {**failed, **names}


def _size(part: Part) -> int:
    return sum(length for _, length in part.ranges)
