"""The compressed images that an ISO 9660 image holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from cowcloop import _core
from cowcloop.errors import CowcloopError, ImageFormatError
from cowcloop.iso9660.disc import Disc, open_disc
from cowcloop.iso9660.medium import open_medium
from cowcloop.source import Part

# A header and an index of one block; smaller files are not looked into.
_LEAST_IMAGE = 136 + 16
# More files than this are not looked into, nor those with longer paths.
_MOST_FILES = 100_000
_LONGEST_PATH = 1024


def contents(path: str) -> dict[str, Any]:
    """What `cowcloop info` tells of an ISO 9660 image.

    `images`: for each cloop or uzip image what `_core.image_info` says; where that fails, "image",
    "path", "file_size" and "error". `problem`: why not all files could be looked at, or None.
    """
    volume, files, problem = "", [], None
    with open_medium(path) as medium:
        size = medium.size
    try:
        with open_disc(path) as disc:
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


def _files(disc: Disc) -> Iterator[Part]:
    """Every file that can be read and may be an image, as its best names are."""
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
            if len(inside) > _LONGEST_PATH:
                continue
            if entry.directory:
                waiting.append((inside, entry))
            elif entry.link is None and not entry.interleaved and disc.lies_within(entry.extents):
                part = Part(disc.path, tuple(entry.extents), f"{disc.path}:{inside}")
                if _size(part) >= _LEAST_IMAGE:
                    yield part


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
