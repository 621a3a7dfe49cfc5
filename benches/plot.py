"""The ratios as a picture: one bar for each peer, the range of its figures as a whisker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from benches.model import OURS, Row
from benches.report import pairs

_WON = "#3b7d4f"
_LOST = "#b5453b"


def draw(rows: Sequence[Row], target: Path) -> None:
    """Write an SVG of all ratios on a logarithmic axis."""
    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = OURS
    bars = [
        (ours, row)
        for ours, row in pairs(rows)
        if ours and row is not ours and row.figures and ours.figures
    ]
    if not bars:
        return
    figure = Figure(figsize=(11, 1.2 + 0.34 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for place, (ours, row) in enumerate(bars):
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
        if row.target is not None:
            axes.plot([row.target] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.5)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(
        range(len(bars)),
        [f"{row.title} | {row.contender}" for _, row in bars],
        fontsize=8,
    )
    axes.invert_yaxis()
    axes.set_xlabel("times as good as the peer, by medians (black mark: what was to be reached)")
    figure.savefig(target, format="svg", metadata={"Date": None})


def _range(row: Row, ours: Row) -> tuple[float, float]:
    """The smallest and the largest ratio that the figures allow."""
    if row.unit.more_is_better:
        return min(ours.figures) / max(row.figures), max(ours.figures) / min(row.figures)
    return min(row.figures) / max(ours.figures), max(row.figures) / min(ours.figures)
