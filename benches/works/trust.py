"""The digest of an image, and reads that are verified against its tree."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cowcloop

from benches.material import PAGE
from benches.model import OURS, RATE, Contender, Unit, Work
from benches.programs import seconds
from benches.works import Setting, remote

_MICROSECONDS = Unit("µs", more_is_better=False)
_CHUNK = 64 << 10
_PIECE = 1 << 20

UNVERIFIED = "cowcloop, not verified"


def works(setting: Setting) -> Iterator[Work]:
    """All of the image is in the page cache, and of one on a server in the cache as well."""
    yield _digest(setting)
    yield _pass(setting, 1)
    yield _pass(setting, 2)
    yield _first(setting)


def _digest(setting: Setting) -> Work:
    raw, size = setting.material.raw, setting.material.size

    def ours() -> float:
        begin = time.perf_counter()
        cowcloop.digest(raw)
        return size / 1e6 / (time.perf_counter() - begin)

    def hashed(place: int) -> None:
        whole = hashlib.sha256()
        length = -(-size // cores)
        with raw.open("rb", buffering=0) as file:
            buffer = memoryview(bytearray(_PIECE))
            for at in range(place, min(size, place + length), _PIECE):
                read = os.preadv(file.fileno(), [buffer], at)
                whole.update(buffer[:read])

    cores = len(os.sched_getaffinity(0))

    def openssl() -> float:
        places = range(0, size, -(-size // cores))
        with ThreadPoolExecutor(cores) as threads:
            begin = time.perf_counter()
            list(threads.map(hashed, places))
            return size / 1e6 / (time.perf_counter() - begin)

    return Work(
        "digest",
        "The digest of an image, in process",
        RATE,
        [Contender(OURS, ours), Contender("SHA-256 by OpenSSL, a part for each core", openssl)],
    )


@contextmanager
def _kept(setting: Setting, verified: bool) -> Iterator[tuple[str, Path, str | None]]:
    """An image on a server, its cache, which has all of it, and the digest to verify it by."""
    with remote.pulled(setting) as (prepared, url, folder):
        yield url, folder, prepared.digest if verified else None


def _pass(setting: Setting, number: int) -> Work:
    size = remote.smaller(setting).size

    def measure(verified: bool) -> float:
        with (
            _kept(setting, verified) as (url, cache, digest),
            cowcloop.serve(url, prefetch="none", cache_dir=cache, verity=digest) as server,
        ):
            # The blocks that stay in the server's own cache are no part of it.
            for _ in range(number):
                taken = seconds(["nbdcopy", server.uri, "null:"])
            return size / 1e6 / taken

    which = ("first", "second")[number - 1]
    return Work(
        f"verified-{which}",
        f"Read a device in order from the cache, the {which} time, verified",
        RATE,
        [Contender(OURS, lambda: measure(True)), Contender(UNVERIFIED, lambda: measure(False))],
    )


def _first(setting: Setting) -> Work:
    def measure(verified: bool) -> float:
        taken = []
        with (
            _kept(setting, verified) as (url, cache, digest),
            cowcloop.open(url, cache_dir=cache, verity=digest) as disk,
        ):
            buffer = bytearray(PAGE)
            for at in range(0, disk.size, 7 * _CHUNK):
                begin = time.perf_counter()
                disk.pread_into(buffer, at)
                taken.append(time.perf_counter() - begin)
        return 1e6 * statistics.median(taken)

    return Work(
        "verified-chunk",
        "The first read of a block from the cache, in process, verified: median",
        _MICROSECONDS,
        [Contender(OURS, lambda: measure(True)), Contender(UNVERIFIED, lambda: measure(False))],
    )
