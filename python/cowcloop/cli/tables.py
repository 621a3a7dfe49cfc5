"""Tables on a terminal; where a table is too wide, a paragraph for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# What rich puts around a cell, and between a name and the next value in a paragraph.
_PADDING = 3
_GAP = "   "
_INDENT = "  "


def fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console, *, left: int
) -> RenderableType:
    """A table, or paragraphs where the terminal is too narrow.

    The first ``left`` columns are words, the others figures. The first
    column names a thing; rows in which it is empty say more about the one before.
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows)]
    if sum(widths) + _PADDING * len(widths) > console.width:
        return _paragraphs(columns, rows, console.width)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _paragraphs(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Text:
    """The name, and below it the rest: `image a   cowfile b`, broken between pairs."""
    text = Text(overflow="fold")
    for name, *values in rows:
        if name:
            text.append(f"{name}\n", "bold")
        room = 0
        for label, value in zip(columns[1:], values):
            if not value:
                continue
            taken = len(label) + 1 + len(value)
            if room >= len(_GAP) + taken:
                text.append(_GAP)
                room -= len(_GAP)
            else:
                text.append(_INDENT if room == 0 else f"\n{_INDENT}")
                room = width - len(_INDENT)
            text.append(f"{label.lower()} ", "dim").append(value)
            # At 0 nothing has been written yet.
            room = max(1, room - taken)
        text.append("\n")
    text.rstrip()
    return text
