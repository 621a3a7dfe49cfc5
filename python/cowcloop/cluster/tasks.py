"""The work on one range of blocks, wherever a worker does it.

The functions are sent by name, so a worker's package has to be the same version: another one
might compress a block to other bytes.
"""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from .. import _core
from ..errors import StorageError, UnsupportedError
from ..part import Part
from .sight import Sight, seen


@dataclass(frozen=True)
class Encoding:
    """The options of `create` that the compressed bytes depend on."""

    block_size: int
    level: int | str
    format: str
    codec: str
    footer: bool

    def options(self) -> dict[str, Any]:
        """Them, by name."""
        return asdict(self)


#: The compressed blocks, their lengths, the CRC-32, the bytes of the input (see _core).
Compressed = tuple[bytes, bytes, int, int]
#: Bad blocks, as _core.verify() lists them.
Bad = list[dict[str, Any]]
#: Blocks that were taken out of an image.
Blocks = list[tuple[int, int, int, str, bool]]


@dataclass(frozen=True)
class Where:
    """The image that is checked, and the files that it is read from.

    An image at a URL is known by its mark, whoever asks for it.
    """

    image: Part
    sights: tuple[Sight, ...]
    #: of an image at a URL
    mark: str | None

    def seen(self) -> bool:
        """Whether this process sees all of them."""
        return all(map(seen, self.sights))


def compress_seen(
    version: str, encoding: Encoding, sight: Sight, offset: int, length: int
) -> Compressed | None:
    """Compress a range of a file; None where this process does not see it."""
    _check(version)
    if not seen(sight):
        return None
    done = _compressor(encoding).compress_range(sight.path, offset, length)
    # A file that was changed meanwhile is not the one that was meant.
    return done if seen(sight) else None


def compress_bytes(
    version: str, encoding: Encoding, name: str, offset: int, data: bytes
) -> Compressed:
    """Compress the bytes of a range."""
    _check(version)
    return _compressor(encoding).compress_bytes(name, offset, data)


def check_seen(version: str, where: Where, first: int, end: int) -> Bad | None:
    """Check blocks of an image; None where this process does not see it."""
    _check(version)
    if not where.seen():
        return None
    checker = _checker(where)
    if checker.mark != where.mark:
        return None
    bad = checker.check(first, end)
    if bad and where.mark is not None:
        # The network may be at fault. The program that this works for looks itself.
        raise StorageError(errno.EIO, f"{where.image}: bad blocks, or none could be fetched")
    return bad if where.seen() else None


def check_bytes(version: str, blocks: Blocks, data: bytes, block_size: int) -> Bad:
    """Check blocks that were taken out of an image."""
    _check(version)
    return _core.check_taken(blocks, data, block_size)


def _check(version: str) -> None:
    if version != _core.__version__:
        message = (
            f"a worker has cowcloop {_core.__version__}, and this is {version}:"
            " install the same version there"
        )
        raise UnsupportedError(95, message)


# Once in a process: the stream of a block of zeros, and an image's index, take time to make.
@lru_cache(maxsize=4)
def _compressor(encoding: Encoding) -> _core.Compressor:
    return _core.Compressor(**encoding.options())


@lru_cache(maxsize=4)
def _checker(where: Where) -> _core.Checker:
    return _core.Checker(where.image)
