"""The compressed images that an ISO 9660 image holds."""

from __future__ import annotations

from typing import Any

from cowcloop import _core
from cowcloop.errors import CowcloopError, ImageFormatError
from cowcloop.iso9660.disc import Disc
from cowcloop.iso9660.records import Entry
from cowcloop.source import Part

# A header and an index of one block; smaller files are not looked into.
_LEAST_IMAGE = 136 + 16
# More files than this are not looked into.
_MOST_FILES = 100_000


def contents(path: str) -> dict[str, Any]:
    """What `cowcloop info` tells of an ISO 9660 image.

    `images`: for each cloop or uzip image what `_core.image_info` says; where that fails, "path",
    "file_size" and "error". `problem`: why not all files could be looked at, or None.
    """
    problem = None
    found: list[tuple[str, Entry]] = []
    with Disc(path) as disc:
        try:
            for inside, entry in disc.files():
                if len(found) == _MOST_FILES:
                    problem = f"{path}: only the first {_MOST_FILES} files were looked into"
                    break
                if entry.size >= _LEAST_IMAGE and disc.lies_within(entry):
                    found.append((inside, entry))
        except ImageFormatError as error:
            problem = f"{error} (not all files were looked into)"
        # In the order of their places: a drive need not seek to and fro.
        found.sort(key=lambda each: each[1].pieces[0])
        images = [_image(disc, inside, entry) for inside, entry in found]
    return {
        "type": "iso9660",
        "path": path,
        "size": disc.size,
        "volume": disc.volume,
        "images": [image for image in images if image is not None],
        "problem": problem,
    }


def _image(disc: Disc, inside: str, entry: Entry) -> dict[str, Any] | None:
    name = f"{disc.path}:{inside}"
    part = Part(disc.path, tuple(entry.pieces), name)
    try:
        if _core.sniff(part) != "cloop":
            return None
        # The name as it is: the engine's need not be.
        return {**_core.image_info(part), "path": name}
    except CowcloopError as error:
        return {"type": "cloop", "path": name, "file_size": entry.size, "error": str(error)}
