"""list --watch: what the served devices are doing, second by second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cowcloop import states
from cowcloop.cli.served import cowfiles, own_states, size_of
from cowcloop.cli.tables import fitting
from cowcloop.sizes import format_size

_INTERVAL = 1.0

# The columns of a cowfile, each with its least width: figures that change must not move others.
_COLUMNS = {
    "COWFILE": 10,
    "BASE": 11,
    "READS": 8,
    "WRITES": 8,
    "STATE": 9,
    "CHANGED": 9,
    "FREE": 9,
}
_GAP = 2
_INDENT = 2


@dataclass
class Shown:
    """A device: a line about it, and one for each cowfile or session, the written one first."""

    heading: str
    rows: list[tuple[str, ...]]


class Rates:
    """The growth of counters since the last look, per second."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], tuple[float, float]] = {}

    def of(self, key: tuple[str, ...], value: float, now: float) -> float | None:
        """None at the first look, and when a counter has started again."""
        before = self._last.get(key)
        self._last[key] = (value, now)
        if before is None or value < before[0] or now <= before[1]:
            return None
        return (value - before[0]) / (now - before[1])


def shown(device: dict[str, Any], rates: Rates, now: float) -> Shown:
    """A device as it is drawn."""
    name = str(device["id"])
    address = str(device["mount"] or device["device"] or device["socket"] or device["uri"])
    if "error" in device:
        return Shown(f"{address}   {states.NO_ANSWER}", [])
    base = rates.of((name, "base"), device["base"]["read_bytes"], now)
    hit = rates.of((name, "hits"), device["cache"]["hits"], now)
    miss = rates.of((name, "misses"), device["cache"]["misses"], now)
    asked = (hit or 0) + (miss or 0)
    hits = f"{100 * (hit or 0) / asked:.0f} %" if asked else "-"
    made: list[tuple[str, ...]] = []
    for cow in cowfiles(device):
        path = str(cow["path"])
        made.append(
            (
                os.path.basename(path),
                _a_second(rates.of((name, path, "base"), cow.get("base_read_bytes", 0), now), True),
                _a_second(rates.of((name, path, "reads"), cow.get("reads", 0), now)),
                _a_second(rates.of((name, path, "writes"), cow.get("writes", 0), now)),
                str(cow.get("state", states.READ_ONLY)),
                format_size(size_of(cow, "blocks_used")) if "blocks_used" in cow else "-",
                _free(path),
            )
        )
    heading = f"{address}   base {_a_second(base, True)}   cache hits {hits}"
    own = own_states(device)
    if own:
        heading += f"   {', '.join(own)}"
    return Shown(heading, made)


def drawing(devices: Sequence[Shown], out: Console) -> RenderableType:
    """The devices one below the other."""
    if not devices:
        return Text("no device is served (Ctrl-C ends this)", "dim")
    if sum(_COLUMNS.values()) + _GAP * len(_COLUMNS) + _INDENT > out.width:
        rows = []
        for device in devices:
            first, *more = device.rows or [("",) * len(_COLUMNS)]
            rows += [(device.heading, *first), *(("", *row) for row in more)]
        return fitting(("DEVICE", *_COLUMNS), rows, out, left=2)
    parts: list[RenderableType] = []
    for device in devices:
        parts.append(Text(device.heading, "bold"))
        if device.rows:
            table = Table(box=None, header_style="dim", padding=(0, _GAP, 0, 0))
            for name, width in _COLUMNS.items():
                words = name in ("COWFILE", "STATE")
                table.add_column(
                    name,
                    min_width=width,
                    no_wrap=True,
                    overflow="ellipsis",
                    justify="left" if words else "right",
                )
            for row in device.rows:
                table.add_row(*map(Text, row))
            parts.append(Padding(table, (0, 0, 0, _INDENT)))
    return Group(*parts)


def _a_second(rate: float | None, size: bool = False) -> str:
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
    """Draw until interrupted; `describe` returns all devices."""
    rates = Rates()
    out = Console()

    def drawn() -> RenderableType:
        now = time.monotonic()
        return drawing([shown(device, rates, now) for device in describe()], out)

    with Live(drawn(), console=out, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(_INTERVAL)
            live.update(drawn(), refresh=True)
