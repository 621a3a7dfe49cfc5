"""Progress of long work, on a terminal only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Callable, Optional

from cowcloop.cli import console
from cowcloop.sizes import format_size

Callback = Callable[[int, Optional[int]], None]


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callback | None]:
    """A callback (bytes done, bytes in all or None) that draws; None where there is no terminal."""
    if console.levels.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    # Only the bar gives way on a narrow terminal. Sizes are written as everywhere else.
    class Sizes(ProgressColumn):
        def render(self, task: Task) -> Text:
            of = "" if task.total is None else f" of {format_size(int(task.total))}"
            return Text(f"{format_size(int(task.completed))}{of}", style="progress.download")

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            rate = f"{format_size(int(speed))}/s" if speed else ""
            return Text(rate, style="progress.data.speed")

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        Sizes(table_column=Column(no_wrap=True)),
        Rate(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
