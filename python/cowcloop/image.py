"""The content of a file, without opening it as a device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import _core
from .errors import ImageFormatError
from .source import locate, shown

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from _typeshed import StrOrBytesPath

__all__ = [
    "BadBlock",
    "CloopImage",
    "CowfileInfo",
    "ImageInfo",
    "VerifyReport",
    "cow_info",
    "digest",
]

#: Called about ten times a second with the bytes done and, once it is known, their total.
ProgressFunction = Callable[[int, Optional[int]], object]


@dataclass(frozen=True)
class ImageInfo:
    """A cloop or uzip image; sizes in bytes."""

    path: str
    #: ``cloop`` or ``uzip``
    format: str
    #: the signature, such as ``V2.0``
    version: str
    #: where header and index are: ``header`` or ``footer``
    layout: str
    block_size: int
    blocks: int
    #: of the device
    size: int
    file_size: int
    index_bytes: int
    compressed_bytes: int
    #: compressed bytes per byte of the device
    ratio: float
    #: how many blocks each codec has
    codecs: Mapping[str, int]
    #: blocks of zeros that take no bytes
    zero_blocks: int
    #: blocks whose bytes are those of an earlier one
    shared_blocks: int


@dataclass(frozen=True)
class CowfileInfo:
    """A cowfile; sizes in bytes, blocks of ``mapunit`` bytes."""

    path: str
    #: ``clean``, ``in use or crashed``, ``dirty`` or ``packed``
    state: str
    #: a packed one that is compressed with gzip
    gzip: bool
    version: int
    #: bits of a ``long`` on the machine that made it: 64 or 32
    word_size: int
    #: ``little`` or ``big``
    byte_order: str
    mapunit: int
    bitmap_bytes: int
    data_offset: int
    blocks_used: int
    blocks_total: int
    #: of the device that it makes
    size: int
    base_size: int
    #: of the base, in hexadecimal
    fingerprint: str
    #: bytes that the file takes on its medium
    allocated: int


@dataclass(frozen=True)
class BadBlock:
    """A block that cannot be read."""

    block: int
    #: where its compressed bytes lie in the file, and how many they are
    offset: int
    length: int
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """The findings of :meth:`CloopImage.verify`."""

    blocks: int
    bad_blocks: int
    #: the first 100,000 of the bad ones
    bad: tuple[BadBlock, ...]

    @property
    def ok(self) -> bool:
        """Whether every block is good."""
        return self.bad_blocks == 0


class CloopImage:
    """A cloop or uzip image as a file; :func:`cowcloop.open` reads the device in it.

    The path may name a file inside an ISO 9660 image: ``cd.iso:/KNOPPIX/KNOPPIX``.

    Every method opens the file anew, so an object keeps nothing open and is used by any
    number of threads.
    """

    def __init__(self, path: StrOrBytesPath) -> None:
        """Name the image; nothing is read yet."""
        self.path = os.fsdecode(path)

    def info(self) -> ImageInfo:
        """The figures in the header and the index.

        Raises :class:`ImageFormatError` when the file is not such an image.
        """
        info = _core.image_info(locate(self.path))
        if info.pop("type") != "cloop":
            raise ImageFormatError(f"{shown(self.path)}: not a cloop or uzip image")
        info["path"] = shown(self.path)
        return ImageInfo(**info)

    def verify(
        self,
        *,
        threads: int | None = None,
        executor: Executor | None = None,
        progress: ProgressFunction | None = None,
    ) -> VerifyReport:
        """Check the index and every block, on all cores unless ``threads`` says how many.

        With an ``executor`` its workers check them: one of :mod:`concurrent.futures`, or
        Dask's (``client.get_executor()``).
        """
        source = locate(self.path)
        if executor is None:
            found = _core.verify(source, threads=threads, progress=progress)
        else:
            from . import cluster

            found = cluster.verify(cluster.Pool.of(executor), source, progress=progress)
        bad = tuple(BadBlock(**block) for block in found["bad"])
        return VerifyReport(found["blocks"], found["bad_blocks"], bad)

    def __repr__(self) -> str:
        return f"cowcloop.CloopImage({shown(self.path)!r})"


def digest(
    image: StrOrBytesPath,
    *,
    tree: StrOrBytesPath | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: ProgressFunction | None = None,
) -> str:
    """The digest of an image, ``sha256:...``, as ``fsverity digest`` prints it.

    Its digest tree goes to the file ``tree``; a cowfile or a compressed image there is replaced
    only with ``force``. :func:`cowcloop.open` verifies the image with both.
    """
    found: str = _core.digest(
        locate(os.fsdecode(image)),
        tree=None if tree is None else os.fsdecode(tree),
        threads=threads,
        force=force,
        progress=progress,
    )["digest"]
    return found


def cow_info(path: StrOrBytesPath) -> CowfileInfo:
    """The figures in a cowfile's head and bitmap; the file may be in use."""
    name = os.fsdecode(path)
    info: dict[str, Any] = _core.cow_info(name)
    del info["type"]
    # The engine's name is for display: it loses bytes that are not UTF-8.
    info["path"] = name
    return CowfileInfo(**info)
