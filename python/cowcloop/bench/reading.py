"""Reading in process: sequentially, at random, and the same from a kernel's block device."""

from __future__ import annotations

import mmap
import os
import random
import time
from collections.abc import Callable

PAGE = 4096
CHUNK = 1 << 20

# Fills a buffer from an offset on.
Reader = Callable[[memoryview, int], int]


def offsets(size: int, block_size: int, limit: int) -> list[int]:
    """A page in each of up to ``limit`` blocks, in random order; the same ones each time."""
    order = random.Random(1)
    blocks = range(max(1, size // block_size))
    picked = order.sample(blocks, min(limit, len(blocks)))
    pages = max(1, min(block_size, size) // PAGE)
    return [block * block_size + PAGE * order.randrange(pages) for block in picked]


def sequential(read: Reader, size: int) -> float:
    """MB/s."""
    buffer = _buffer(CHUNK)
    begin = time.perf_counter()
    for at in range(0, size, CHUNK):
        read(buffer[: min(CHUNK, size - at)], at)
    return size / 1e6 / (time.perf_counter() - begin)


def at_random(read: Reader, places: list[int], size: int) -> float:
    """Reads of 4 KiB per second, one after the other."""
    buffer = _buffer(PAGE)
    begin = time.perf_counter()
    for at in places:
        read(buffer[: min(PAGE, size - at)], at)
    return len(places) / (time.perf_counter() - begin)


def _buffer(size: int) -> memoryview:
    """Memory aligned for O_DIRECT; freed with the last view of it, which may outlive a Ctrl-C."""
    return memoryview(mmap.mmap(-1, size))


class BlockDevice:
    """A block device of the kernel's, past its page cache."""

    def __init__(self, path: str) -> None:
        """Open it; O_DIRECT, so that nothing read before is found again."""
        self._file = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)

    def read(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer."""
        return os.preadv(self._file, [buffer], offset)

    def __enter__(self) -> BlockDevice:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
