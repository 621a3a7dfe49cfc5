"""The figures as a table for readers and as JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benches.model import OURS, Row


def to_json(rows: Sequence[Row], machine: dict[str, object]) -> dict[str, Any]:
    """Everything that was measured."""
    made = [_row_json(row, ours, machine["cores"]) for ours, row in pairs(rows)]
    return {"machine": machine, "rows": made}


def _row_json(row: Row, ours: Row | None, cores: object) -> dict[str, Any]:
    known: dict[str, Any] = {
        "work": row.work,
        "title": row.title,
        "contender": row.contender,
        "cores": row.cores or cores,
        "unit": row.unit.name,
        "more_is_better": row.unit.more_is_better,
        "figures": row.figures,
        "steal_percent": row.steal,
    }
    if row.unavailable:
        known["unavailable"] = row.unavailable
    if ours and row is not ours and row.figures and ours.figures:
        known["ratio"] = row.ratio_of(ours)
    return known


def pairs(rows: Sequence[Row]) -> Iterator[tuple[Row | None, Row]]:
    """Each row with cowcloop's in the same work."""
    for _, group in groupby(rows, key=lambda row: row.work):
        members = list(group)
        ours = next((row for row in members if row.contender.startswith(OURS)), None)
        for row in members:
            yield ours, row


def show(rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """Print the table, machine and versions above it."""
    console = Console(width=None if Console().is_terminal else 130, highlight=False)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    console.print(f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}")
    console.print(versions)
    if "busy" in machine:
        console.print(machine["busy"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("work / program", overflow="fold")
    for name in ("cores", "min", "median", "max", "unit", "ratio"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    title = ""
    for ours, row in pairs(rows):
        if row.title != title:
            title = row.title
            table.add_row(f"[bold]{title}[/bold]")
        if row.figures:
            colour = "red" if ours and ours.figures and row.ratio_of(ours) < 1 else "green"
            shown = f"[{colour}]{_ratio(row, ours)}[/]"
            table.add_row(f"  {row.contender}", *_cells(row, machine), shown)
        else:
            table.add_row(f"  {row.contender}: {row.unavailable}")
    console.print(table)
    console.print(
        "ratio: how many times as good as this program cowcloop is, by medians; below 1 it loses"
    )


def _cells(row: Row, machine: dict[str, Any]) -> list[str]:
    figures = [min(row.figures), row.median, max(row.figures)]
    return [str(row.cores or machine["cores"]), *map(_number, figures), row.unit.name]


def _ratio(row: Row, ours: Row | None) -> str:
    if ours is None or row is ours or not ours.figures:
        return ""
    return f"{row.ratio_of(ours):.2f}x"


def to_markdown(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The same table for the documentation."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    about = (
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']};"
        f" {versions}; {machine['busy']}."
    )
    lines = [
        *textwrap.wrap(about, 100),
        "",
        "| work | program | cores | min | median | max | unit | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    title = ""
    for ours, row in pairs(rows):
        shown, title = ("" if row.title == title else row.title), row.title
        if not row.figures:
            lines.append(f"| {shown} | {row.contender}: {row.unavailable} | | | | | | |")
            continue
        ratio = _ratio(row, ours)
        if ratio and ours and row.ratio_of(ours) < 1:
            ratio = f"**{ratio}**"
        cells = [*_cells(row, machine), ratio]
        lines.append(f"| {shown} | {row.contender} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
