"""bench: how fast this machine reads an image."""

from __future__ import annotations

from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import IMAGE, JSON, command
from cowcloop.cli.device_options import options_of
from cowcloop.options import ImageKeywords


@command("bench")
@IMAGE
@options_of(ImageKeywords)
@JSON
@click.option(
    "--runs",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    metavar="N",
    help="How often each task is repeated.",
)
def bench_command(image: str, as_json: bool, runs: int, **options: Any) -> None:
    """Measure how fast this machine reads IMAGE.

    Sequentially, at random (4 KiB in every block, none of it cached) and extracting; in this
    process, and through nbdkit. Where the cloop kernel module holds the same image at /dev/cloop0,
    it is measured in turn with them, and the ratio is shown.

    \b
    Examples:
      cowcloop bench chicken
      cowcloop bench chicken --runs 10 --json
    """
    from cowcloop import bench

    measured = bench.run(image, runs, **options)
    if as_json:
        console.result_json(measured.to_dict())
        return
    rows = []
    for figures in measured.figures:
        values = (min(figures.values), figures.median, max(figures.values))
        beside = "-" if figures.ratio is None else f"{figures.ratio:.2f}x"
        numbers = [f"{value:,.0f}" for value in values]
        rows.append((figures.work, figures.way, *numbers, figures.unit, beside))
    console.table(("WORK", "WAY", "MIN", "MEDIAN", "MAX", "UNIT", "OF KERNEL CLOOP"), rows)
    if not console.levels.quiet:
        for note in measured.notes:
            console.result(note)
