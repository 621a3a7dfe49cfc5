"""extract: the plain device image."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from cowcloop.cli import console, streams
from cowcloop.cli.base import COWS, FORCE, IMAGE, JSON, PATH, THREADS, command
from cowcloop.cli.device_options import options_of
from cowcloop.cli.progress import progress
from cowcloop.options import ImageKeywords
from cowcloop.sizes import format_size


@command("extract")
@IMAGE
@COWS
@click.argument("out", type=PATH)
@click.option(
    "--sparse/--no-sparse", default=True, help="Leave holes where the device is zero (default)."
)
@options_of(ImageKeywords)
@THREADS
@FORCE
@JSON
def extract_command(
    image: str,
    cows: tuple[str, ...],
    out: str,
    sparse: bool,
    threads: int | None,
    force: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Write the device to OUT as a plain image, with the changes in COW.

    OUT is complete or not there; - is standard output. A cowfile or compressed image at OUT is
    kept unless --force is given.

    \b
    Examples:
      cowcloop extract chicken chicken.raw
      cowcloop extract chicken chicken.cow merged.raw
      cowcloop extract chicken - | sha256sum
    """
    from cowcloop import _core
    from cowcloop.source import locate

    check_output(out, as_json)
    with progress("extracting") as report:
        done = _core.extract(
            locate(image, **values),
            list(cows),
            out,
            threads=threads,
            sparse=sparse,
            force=force,
            progress=report,
        )
    console.outcome(as_json, out, done, format_size(done["size"]))


def check_input(src: str) -> None:
    """Refuse a standard input that is closed, or is a terminal, which yields no binary data."""
    if src == "-":
        streams.check_input()
        if sys.stdin.isatty():
            raise click.UsageError("SRC is a terminal: name a file, or send data to standard input")


def check_output(out: str, as_json: bool) -> None:
    """Refuse a standard output that is closed, or is a terminal, where binary data is useless.

    Two results of one command cannot share it either.
    """
    if out == "-":
        if as_json:
            raise click.UsageError("--json needs the name of a file for OUT, not -")
        streams.check_output()
        if sys.stdout.isatty():
            raise click.UsageError("OUT is a terminal: name a file, or send - into a pipe or file")
