"""Reads over NBD at given offsets and a given queue depth.

fio's NBD engine cannot be told the offsets: replaying a log, it leaves with its last requests
unanswered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from benches.model import UnavailableError


def reads_per_second(uri: str, offsets: Sequence[int], length: int, depth: int) -> float:
    """Every offset once, in this order, with ``depth`` requests under way."""
    try:
        import nbd
    except ImportError:
        raise UnavailableError("libnbd's Python module is not installed: python3-libnbd") from None
    handle = nbd.NBD()
    handle.connect_uri(uri)
    buffers = [nbd.Buffer(length) for _ in range(depth)]
    free = list(range(depth))

    def read(offset: int) -> None:
        slot = free.pop()

        def completed(error: int) -> int:
            if error:
                raise RuntimeError(f"read at {offset}: error {error}")
            free.append(slot)
            return 1

        handle.aio_pread(buffers[slot], offset, completion=completed)

    begin = time.perf_counter()
    for offset in offsets:
        while not free:
            handle.poll(-1)
        read(offset)
    while len(free) < depth:
        handle.poll(-1)
    taken = time.perf_counter() - begin
    handle.shutdown()
    return len(offsets) / taken
