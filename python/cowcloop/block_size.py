"""The block size of a new image: what divides a source, and which programs read it."""

from __future__ import annotations

import os
import stat

from cowcloop.errors import InvalidInputError
from cowcloop.sizes import format_size

#: What an image gets unless told otherwise.
USUAL = 65536

#: The largest that the kernel's cloop driver reads.
MOST_FOR_KERNEL = 1 << 20

_SECTOR = 512
#: Smaller ones compress badly, and have a large index.
_SMALL = 4096


def size_of(source: str) -> int | None:
    """Bytes of a file or block device; None where the size is unknown until the end is read."""
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISREG(mode):
            return os.stat(source).st_size
        if not stat.S_ISBLK(mode):
            return None
        with open(source, "rb") as device:
            return device.seek(0, os.SEEK_END)
    except OSError:
        # The engine, which opens it next, says what is wrong.
        return None


def dividing(size: int) -> int | None:
    """The block size nearest to the usual one that divides ``size``; None when none does."""
    if size == 0 or size % _SECTOR:
        return None
    counts = range(1, MOST_FOR_KERNEL // _SECTOR + 1)
    fitting = [count * _SECTOR for count in counts if size // _SECTOR % count == 0]
    return min(fitting, key=lambda block: max(block / USUAL, USUAL / block))


def exact(source: str, shown: str) -> int:
    """The block size that adds nothing to ``source``, which messages call ``shown``."""
    size = size_of(source)
    if size is None:
        raise InvalidInputError(f"{shown}: --exact needs a file or block device, to know its size")
    found = dividing(size)
    if found is None:
        message = f"{shown}: no block size divides its {size} bytes: leave out --exact"
        raise InvalidInputError(message)
    return found


def padding_warning(shown: str, size: int, block_size: int, remedy: str = "") -> str | None:
    """The warning that the last block of an image was filled up; None where it was not.

    ``remedy`` is a format for the block size that would add nothing.
    """
    added = -size % block_size
    if not added:
        return None
    text = (
        f"{shown}: its {size} bytes are not a multiple of the block size {block_size}:"
        f" {added} bytes of zeros were added, so its digest and its end differ"
    )
    found = dividing(size)
    if not remedy:
        return text
    if found is None:
        return f"{text}; no block size divides it"
    return f"{text}; {remedy.format(found)} adds none"


def unusual(shown: str, block_size: int, exact: bool) -> str | None:
    """A warning about a block size that not every program reads, or that compresses badly."""
    if block_size > MOST_FOR_KERNEL:
        return (
            f"the kernel's cloop driver refuses blocks above {format_size(MOST_FOR_KERNEL)}, and so"
            f" an image with blocks of {format_size(block_size)}"
        )
    if exact and block_size < _SMALL:
        return (
            f"{shown}: only small blocks divide it, and blocks of {block_size} bytes compress"
            " badly; without --exact zeros would be added"
        )
    return None
