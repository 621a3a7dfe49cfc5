"""Measures works: all contenders in turn, again and again, so that a busy moment hits all."""

from __future__ import annotations

import sys

from benches.machine import ProcessorTime, load
from benches.model import Row, UnavailableError, Work


def measure(work: Work, runs: int) -> list[Row]:
    """A row for each contender, in the work's order."""
    rows = [Row(work.name, work.title, contender.name, work.unit) for contender in work.contenders]
    for turn in range(work.runs or runs):
        for row, contender in zip(rows, work.contenders):
            if row.unavailable:
                continue
            stolen = ProcessorTime()
            try:
                figure = contender.run()
            except UnavailableError as error:
                row.unavailable = str(error)
                continue
            row.figures.append(figure)
            row.steal.append(round(stolen.stolen_percent(), 1))
            print(
                f"{work.name} {turn + 1}: {contender.name}: {figure:.4g} {work.unit.name}"
                f" (steal {row.steal[-1]:.0f} %, load {load():.1f})",
                file=sys.stderr,
                flush=True,
            )
    return rows
