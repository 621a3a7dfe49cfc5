"""An image that takes more than a path to open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """An image that is a part of a file, or is verified as its user wants it."""

    #: of the file
    path: str
    #: offset and length of each piece, in bytes; none for the whole file
    ranges: tuple[tuple[int, int], ...]
    #: the name that the user gave it
    name: str
    #: the digest that it must have
    verity: str | None = None
    #: the file of its digest tree, where that is not the image's name and ``.verity``
    verity_tree: str | None = None
