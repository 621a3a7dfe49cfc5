"""The ratios as a picture: one bar for each peer, the range of its figures as a whisker."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from benches.model import OURS, Row
from benches.report import pairs

_WON = "#3b7d4f"
_LOST = "#b5453b"

# Inches: a line, and what title and axis take.
_LINE = 0.24
_AROUND = 1.4

_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def draw(rows: Sequence[Row], target: Path) -> None:
    """Write an SVG of all ratios on a logarithmic axis, work by work."""
    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = OURS
    bars = [
        (ours, row)
        for ours, row in pairs(rows)
        if ours and row is not ours and row.figures and ours.figures
    ]
    if not bars:
        return
    works = [(title, [*group]) for title, group in groupby(bars, key=lambda bar: bar[1].title)]
    lines = len(bars) + len(works)
    figure = Figure(figsize=(11, _AROUND + _LINE * lines), layout="constrained")
    axes = figure.subplots()
    labels: list[tuple[str, str]] = []
    for title, group in works:
        labels.append((title.rstrip(":"), "bold"))
        for ours, row in group:
            _bar(axes, len(labels), ours, row)
            labels.append((row.contender, "normal"))
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 1.6)
    shown = [tick for tick in _TICKS if low <= tick <= high * 1.6]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(labels)), [text for text, _ in labels], fontsize=9)
    for label, (_, weight) in zip(axes.get_yticklabels(), labels):
        label.set_fontweight(weight)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.8)
    axes.set_xlabel(
        "green: cowcloop is better; red: the other program; grey line: the range of the runs"
    )
    figure.suptitle(
        f"{OURS}: how many times as good as another program\nmedians; 1 is as good",
        fontsize=12,
    )
    figure.savefig(target, format="svg", metadata={"Date": None})


def _bar(axes: matplotlib.axes.Axes, place: int, ours: Row, row: Row) -> None:
    ratio = row.ratio_of(ours)
    low, high = _range(row, ours)
    axes.barh(
        place,
        ratio - 1,
        left=1,
        color=_WON if ratio >= 1 else _LOST,
        xerr=[[max(0, ratio - low)], [max(0, high - ratio)]],
        ecolor="#777777",
    )
    right = max(1, ratio, high)
    axes.annotate(
        f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}",
        (right, place),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def _range(row: Row, ours: Row) -> tuple[float, float]:
    """The smallest and the largest ratio that the figures allow."""
    if row.unit.more_is_better:
        return min(ours.figures) / max(row.figures), max(ours.figures) / min(row.figures)
    return min(row.figures) / max(ours.figures), max(row.figures) / min(ours.figures)
