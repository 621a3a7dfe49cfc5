"""Tables on terminals of several widths."""

from __future__ import annotations

import io

from cowcloop.cli.tables import fitting
from rich.console import Console

COLUMNS = ("ADDRESS", "COWFILE", "READS")
ROWS = [
    ("nbd+unix:///?socket=/run/x", "[red].cow", "12/s"),
    ("", "b.cow", ""),
    ("/dev/nbd0", "c.cow", "3/s"),
]


def _shown(width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(fitting(COLUMNS, ROWS, out, left=2))
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_a_table_where_there_is_room() -> None:
    lines = _shown(80)
    assert lines[1].split() == ["ADDRESS", "COWFILE", "READS"]
    assert lines[3].split() == ["nbd+unix:///?socket=/run/x", "[red].cow", "12/s"]
    # Figures end below each other.
    assert lines[1].index("READS") + 5 == lines[3].index("12/s") + 4


def test_paragraphs_where_there_is_none() -> None:
    assert _shown(40) == [
        "nbd+unix:///?socket=/run/x",
        "  cowfile [red].cow   reads 12/s",
        "  cowfile b.cow",
        "/dev/nbd0",
        "  cowfile c.cow   reads 3/s",
    ]
    assert _shown(26) == [
        "nbd+unix:///?socket=/run/x",
        "  cowfile [red].cow",
        "  reads 12/s",
        "  cowfile b.cow",
        "/dev/nbd0",
        "  cowfile c.cow",
        "  reads 3/s",
    ]
