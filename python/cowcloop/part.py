"""An image that takes more than a path to open."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Union


@dataclass(frozen=True)
class Remote:
    """How an image at a URL is read and kept; None is the engine's default."""

    cache_dir: str | None = None
    #: bytes
    cache_limit: int | None = None
    offline: bool = False
    #: seconds
    timeout: int | None = None
    ca_file: str | None = None


@dataclass(frozen=True)
class Part:
    """An image that is a part of a file, lies at a URL, or is verified as its user wants it."""

    #: of the file, or the URL, which may hold secrets
    path: str = field(repr=False)
    #: offset and length of each piece, in bytes; none for the whole file
    ranges: tuple[tuple[int, int], ...]
    #: the name that the user gave it, without secrets
    name: str
    #: the digest that it must have
    verity: str | None = None
    #: the file of its digest tree, where that is not the image's name and ``.verity``
    verity_tree: str | None = None
    #: for a URL
    remote: Remote | None = None

    def __str__(self) -> str:
        return self.name


#: A file, or what lies at a URL.
Place = Union[str, Part]

_URL = re.compile(r"(https?|s3|gs|az)://", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether a name is a URL of an image."""
    return _URL.match(text) is not None
