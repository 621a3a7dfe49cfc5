"""The parts that the commands on cowfiles share."""

from __future__ import annotations

import rich_click as click

from cowcloop.cli.base import PATH
from cowcloop.cli.completion import served_or_file

COW = click.argument("cow", type=PATH)
TARGET = click.argument("target", metavar="TARGET|COW", type=PATH, shell_complete=served_or_file)


def blocks(count: int) -> str:
    """A number of blocks, in words."""
    return f"{count} block" if count == 1 else f"{count} blocks"
