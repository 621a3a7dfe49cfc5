"""Where the time of a cold 4 KiB read goes: ``python -m benches.cold_read``.

Each step adds one thing to the one before, and every read is timed by itself: medians of single
reads stay true on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cowcloop import _core
from cowcloop.sizes import parse_size

from benches import material, servers
from benches.material import BLOCK, PAGE, Material

_ROUNDS = 3

Read = Callable[[int], object]


def main() -> None:
    """Print one line for each step."""
    parser = argparse.ArgumentParser(prog="python -m benches.cold_read", description=__doc__)
    parser.add_argument("--size", type=parse_size, default=512 << 20, help="of the image: 512M")
    prepared = material.prepare(parser.parse_args().size)
    blocks = [place // BLOCK * BLOCK for place in material.offsets(prepared)]
    first, middle, last = 0, BLOCK // 2, BLOCK - PAGE
    print("microseconds a read:       10 %  median    90 %")
    for title, opened, within in (
        ("a Python call that reads 4 KiB of a plain file", plain(prepared), middle),
        ("read the compressed block from the page cache", compressed(prepared), middle),
        ("in process, cold, first page of the block", ours(prepared), first),
        ("in process, cold, middle page", ours(prepared), middle),
        ("in process, cold, last page", ours(prepared), last),
        ("in process, cold, whole block checked first (strict)", ours(prepared, strict=True), 0),
        ("in process, cached", ours(prepared, warm=True), middle),
        ("over NBD, memory plugin", served("memory", prepared), middle),
        ("over NBD, cold, middle page", served("cowcloop", prepared), middle),
    ):
        with_figures(title, opened, [block + within for block in blocks])


def with_figures(title: str, opened: Callable[[], Iterator[Read]], places: Sequence[int]) -> None:
    """Read all places several times, and print how long single reads took."""
    taken: list[float] = []
    for _ in range(_ROUNDS):
        with contextmanager(opened)() as read:
            for place in places:
                begin = time.perf_counter_ns()
                read(place)
                taken.append((time.perf_counter_ns() - begin) / 1000)
    tenths = statistics.quantiles(taken, n=10)
    print(f"{title:54}{tenths[0]:8.1f}{tenths[4]:8.1f}{tenths[8]:8.1f}", flush=True)


def plain(prepared: Material) -> Callable[[], Iterator[Read]]:
    """pread of the raw image."""

    def opened() -> Iterator[Read]:
        with prepared.raw.open("rb", buffering=0) as file:
            yield lambda at: os.pread(file.fileno(), PAGE, at)

    return opened


def compressed(prepared: Material) -> Callable[[], Iterator[Read]]:
    """pread of as many bytes as a compressed block has on average."""
    ratio = prepared.cloop.stat().st_size / prepared.size
    length = int(BLOCK * ratio)

    def opened() -> Iterator[Read]:
        with prepared.cloop.open("rb", buffering=0) as file:
            yield lambda at: os.pread(file.fileno(), length, int(at * ratio))

    return opened


def ours(
    prepared: Material, *, strict: bool = False, warm: bool = False
) -> Callable[[], Iterator[Read]]:
    """The engine, entered from Python; warm: one block, read again and again."""

    def opened() -> Iterator[Read]:
        device = _core.Device(prepared.cloop, [], strict=strict)
        buffer = bytearray(PAGE)
        if warm:
            device.pread_into(buffer, 0)
            yield lambda at: device.pread_into(buffer, at % BLOCK)
        else:
            yield lambda at: device.pread_into(buffer, at)
        device.close()

    return opened


def served(kind: str, prepared: Material) -> Callable[[], Iterator[Read]]:
    """libnbd, one request at a time."""

    def opened() -> Iterator[Read]:
        import nbd

        memory = servers.nbdkit("memory", str(prepared.size))
        with memory if kind == "memory" else servers.ours(prepared.cloop) as uri:
            handle = nbd.NBD()
            handle.connect_uri(uri)
            yield lambda at: handle.pread(PAGE, at)
            handle.shutdown()

    return opened


if __name__ == "__main__":
    main()
