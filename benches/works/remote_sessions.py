"""Sixty machines that start at once from one server, whose image is far away."""

from __future__ import annotations

import json
import select
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cowcloop

from benches import far, web
from benches.material import BLOCK, PAGE
from benches.model import OURS, Contender, UnavailableError, Unit, Work
from benches.programs import COWCLOOP, run
from benches.works import Setting, remote

SESSIONS = 60

_CHUNKS = Unit("chunks", more_is_better=False)
_TIMES = Unit("times", more_is_better=False)
# Of the server, in which all that the sessions read has room.
_CACHE = "256M"


@dataclass(frozen=True)
class _Found:
    """Chunks that were fetched more than once, and how often a block was inflated."""

    twice: float
    inflated: float
    slowest: float


def works(setting: Setting) -> Iterator[Work]:
    """Three figures of the same run."""
    found: list[_Found] = []

    def work(name: str, title: str, unit: Unit, figure: Callable[[_Found], float]) -> Work:
        taken = 0

        def measure() -> float:
            nonlocal taken
            # The first of these works measures for all.
            if taken == len(found):
                found.append(_measure(setting))
            taken += 1
            return figure(found[taken - 1])

        title = f"{SESSIONS} sessions at 25 Mbit/s, 20 ms, a trace replayed: {title}"
        return Work(f"remote-sessions-{name}", title, unit, [Contender(OURS, measure)])

    yield work("twice", "chunks fetched again", _CHUNKS, lambda run: run.twice)
    yield work("inflated", "inflations a block", _TIMES, lambda run: run.inflated)
    yield work("slowest", "the slowest by the median", _TIMES, lambda run: run.slowest)


def _measure(setting: Setting) -> _Found:
    prepared = far.prepare(remote.smaller(setting))
    blocks = prepared.blocks()
    places = [block * BLOCK for block in blocks]
    with (
        web.serving(prepared.folder, remote.SLOW) as site,
        tempfile.TemporaryDirectory(dir=setting.scratch) as folder,
    ):
        sessions, fetched = Path(folder, "sessions"), Path(folder, "cache")
        sessions.mkdir()
        with cowcloop.serve(
            site.url(prepared.image), sessions=sessions, cache=_CACHE, cache_dir=fetched
        ) as server:
            taken = _replay(server.uri, places)
            held = _cache_of(server.uri)
        asked = site.chunks(prepared.image)
    slowest = max(taken) / statistics.median(taken)
    twice = sum(times > 1 for times in asked.values())
    return _Found(twice, held["misses"] / held["blocks"], slowest)


def _cache_of(uri: str) -> dict[str, int]:
    """What `list` says of a server's cache."""
    devices = json.loads(run([COWCLOOP, "list", "--json"]))
    held: dict[str, int] = next(each["cache"] for each in devices if each["uri"] == uri)
    return held


class _Machine:
    """A client of a session of its own, which reads a page at each place, one after the other."""

    def __init__(self, nbd: Any, socket: str, name: str) -> None:
        self.handle = nbd.NBD()
        self.handle.set_export_name(name)
        self.handle.connect_unix(socket)
        self._buffer = nbd.Buffer(PAGE)
        self._read: int | None = None
        self.done = 0

    def go_on(self, places: list[int]) -> bool:
        """Ask for the next page where the last one has come; whether there is more to come."""
        if self._read is None or self.handle.aio_command_completed(self._read):
            if self.done == len(places):
                return False
            self._read = self.handle.aio_pread(self._buffer, places[self.done])
            self.done += 1
        return True


def _replay(uri: str, places: list[int]) -> list[float]:
    """How long each machine takes, all of them at once."""
    try:
        import nbd
    except ImportError:
        raise UnavailableError("libnbd's Python module is not installed: python3-libnbd") from None
    (socket,) = parse_qs(urlsplit(uri).query)["socket"]
    machines = {}
    for number in range(SESSIONS):
        machine = _Machine(nbd, socket, f"pc{number}")
        machines[machine.handle.aio_get_fd()] = machine
    begin = time.perf_counter()
    taken: list[float] = []
    poll = select.poll()
    for fd, machine in machines.items():
        machine.go_on(places)
        poll.register(fd, select.POLLIN)
    while len(taken) < SESSIONS:
        for fd, _ in poll.poll():
            machine = machines[fd]
            # A page is small enough to be sent for at once.
            machine.handle.aio_notify_read()
            if not machine.go_on(places):
                taken.append(time.perf_counter() - begin)
                poll.unregister(fd)
    for machine in machines.values():
        machine.handle.shutdown()
    return taken
