"""list --watch: what the served devices are doing, second by second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from cowcloop.cli.tables import fitting
from cowcloop.sizes import format_size

_INTERVAL = 1.0
_UNIT = 1024

_COLUMNS = ("ADDRESS", "COWFILE", "BASE READ", "COW READS", "COW WRITES", "HITS", "STATE", "FREE")


class Rates:
    """What grew since the last look, a second."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], tuple[float, float]] = {}

    def of(self, key: tuple[str, ...], value: float, now: float) -> float | None:
        """None at the first look, and where a counter began anew."""
        before = self._last.get(key)
        self._last[key] = (value, now)
        if before is None or value < before[0] or now <= before[1]:
            return None
        return (value - before[0]) / (now - before[1])


def rows(device: dict[str, Any], rates: Rates, now: float) -> list[tuple[str, ...]]:
    """One line for each cowfile or session of a device, the written one first."""
    name = str(device["id"])
    address = str(device["mount"] or device["device"] or device["uri"])
    if "error" in device:
        return [(address, "no answer", *"-" * (len(_COLUMNS) - 2))]
    base = rates.of((name, "base"), device["base"]["read_bytes"], now)
    hits, misses = device["cache"]["hits"], device["cache"]["misses"]
    hit = rates.of((name, "hits"), hits, now)
    miss = rates.of((name, "misses"), misses, now)
    asked = (hit or 0) + (miss or 0)
    cows = [*reversed(device["cowfiles"]), *device.get("sessions", ())] or [{}]
    made: list[tuple[str, ...]] = []
    for number, cow in enumerate(cows):
        path = str(cow.get("path", "-"))
        reads = rates.of((name, path, "reads"), cow.get("reads", 0), now)
        writes = rates.of((name, path, "writes"), cow.get("writes", 0), now)
        used = cow.get("blocks_used")
        state = cow.get("state", "read-only")
        first = number == 0
        made.append(
            (
                address if first else "",
                os.path.basename(path),
                _a_second(base, size=True) if first else "",
                _a_second(reads),
                _a_second(writes),
                (f"{100 * (hit or 0) / asked:.0f} %" if asked else "-") if first else "",
                f"{state}, {format_size(used * _UNIT)}" if used is not None else str(state),
                _free(path),
            )
        )
    return made


def _a_second(rate: float | None, *, size: bool = False) -> str:
    if rate is None:
        return "-"
    return f"{format_size(round(rate))}/s" if size else f"{rate:.0f}/s"


def _free(path: str) -> str:
    try:
        space = os.statvfs(path)
    except OSError:
        return "-"
    return format_size(space.f_bavail * space.f_frsize)


def watch(describe: Callable[[], list[dict[str, Any]]]) -> None:
    """Draw until it is interrupted; `describe` tells of all devices."""
    rates = Rates()

    out = Console()

    def drawn() -> RenderableType:
        made = [row for device in describe() for row in rows(device, rates, time.monotonic())]
        if not made:
            return Text("no device is served (Ctrl-C ends this)", "dim")
        return fitting(_COLUMNS, made, out, left=2)

    with Live(drawn(), console=out, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(_INTERVAL)
            live.update(drawn(), refresh=True)
