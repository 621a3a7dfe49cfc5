"""An image inside another file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """An image that is a part of a file."""

    #: of the file
    path: str
    #: offset and length of each piece, in bytes
    ranges: tuple[tuple[int, int], ...]
    #: the name that the user gave it
    name: str
