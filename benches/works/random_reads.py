"""Reads of 4 KiB: cold, with every block touched once; for some time; and all from the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

from benches import mounts, servers
from benches.material import PAGE, offsets, write_io_log
from benches.model import OURS, READS, Contender, Work
from benches.nbd_reads import reads_per_second
from benches.programs import fio
from benches.works import Setting

# Of the device that is read from the cache: well within cowcloop's default one.
_CACHED = "32M"

Server = Callable[[], AbstractContextManager[str]]


def works(setting: Setting) -> Iterator[Work]:
    """Cold and warm reads, at queue depths 1 and 16."""
    material = setting.material

    def peers(work: Callable[[Server], Callable[[], float]]) -> list[Contender]:
        return [
            Contender(OURS, work(lambda: servers.ours(material.cloop))),
            Contender("qemu-nbd", work(lambda: servers.qemu_nbd(material.cloop, "cloop", "-r"))),
        ]

    for depth in (1, 16):
        contenders = peers(partial(_cold, setting, depth))
        if depth == 1:
            contenders.append(Contender("squashfs, this kernel", _squashfs(setting)))
        yield Work(
            f"random-cold-{depth}",
            f"Random 4 KiB, every block touched once, cold, depth {depth}",
            READS,
            contenders,
        )
    yield Work(
        "random-long",
        f"Random 4 KiB for {setting.seconds:g} s, whole image, default cache, depth 16",
        READS,
        peers(partial(_for_some_time, setting)),
        runs=2,
    )
    yield Work(
        "cached-16",
        "Cached 4 KiB reads, depth 16",
        READS,
        [
            Contender(OURS, lambda: _cached(servers.ours(material.cloop), "read")),
            Contender(
                "nbdkit memory plugin",
                lambda: _cached(servers.nbdkit("memory", _CACHED), "write"),
            ),
        ],
    )


def _cold(setting: Setting, depth: int, server: Server) -> Callable[[], float]:
    def measure() -> float:
        with server() as uri:
            return reads_per_second(uri, offsets(setting.material), PAGE, depth)

    return measure


def _squashfs(setting: Setting) -> Callable[[], float]:
    material, log = setting.material, setting.scratch / "squashfs.iolog"

    def measure() -> float:
        with mounts.held("squashfs", material.squashfs, material.raw.name) as file:
            write_io_log(log, str(file), material)
            hint = "--fadvise_hint=random"
            return fio("--ioengine=psync", f"--read_iolog={log}", "--invalidate=1", hint)

    return measure


def _for_some_time(setting: Setting, server: Server) -> Callable[[], float]:
    def measure() -> float:
        with server() as uri:
            return _fio_nbd(
                uri,
                "--rw=randread",
                "--bs=4k",
                f"--size={setting.material.size}",
                "--iodepth=16",
                "--time_based",
                f"--runtime={setting.seconds}s",
            )

    return measure


def _cached(server: AbstractContextManager[str], direction: str) -> float:
    with server as uri:
        area = ("--bs=4k", f"--size={_CACHED}", "--iodepth=16")
        # All of it is cached before the measurement; twice, for caches that keep a block at its
        # second use.
        for _ in range(2):
            _fio_nbd(uri, f"--rw={direction}", *area, direction=direction)
        return _fio_nbd(uri, "--rw=randread", *area, "--norandommap", "--time_based", "--runtime=3")


def _fio_nbd(uri: str, *options: str, direction: str = "read") -> float:
    return fio("--ioengine=nbd", f"--uri={uri}", *options, direction=direction)
