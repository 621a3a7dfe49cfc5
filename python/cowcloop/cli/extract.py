"""extract: the plain device image."""

from __future__ import annotations

import sys

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import COWS, IMAGE, PATH, THREADS, command
from cowcloop.cli.progress import progress
from cowcloop.sizes import format_size


@command("extract")
@IMAGE
@COWS
@click.argument("out", type=PATH)
@click.option(
    "--sparse/--no-sparse", default=True, help="Leave holes where the device is zero (default)."
)
@THREADS
def extract_command(
    image: str, cows: tuple[str, ...], out: str, sparse: bool, threads: int | None
) -> None:
    """Write the device to OUT as a plain image, with the changes in COW.

    OUT is complete or not there; - is standard output.

    \b
    Examples:
      cowcloop extract chicken chicken.raw
      cowcloop extract chicken chicken.cow merged.raw
      cowcloop extract chicken - | sha256sum
    """
    from cowcloop import _core
    from cowcloop.source import locate

    refuse_terminal(out)
    with progress("extracting") as report:
        done = _core.extract(
            locate(image), list(cows), out, threads=threads, sparse=sparse, progress=report
        )
    if "bytes" in done:
        console.note(f"{out}: {format_size(done['bytes'])}")


def refuse_terminal(out: str) -> None:
    """A usage error when binary data would go to a terminal."""
    if out == "-" and sys.stdout.isatty():
        raise click.UsageError("OUT is a terminal: name a file, or send - into a pipe or file")
