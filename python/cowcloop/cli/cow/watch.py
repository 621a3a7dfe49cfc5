"""cow watch: the space where a cowfile lies."""

from __future__ import annotations

import os
import time

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import JSON, SIZE, command
from cowcloop.cli.cow.arguments import TARGET
from cowcloop.sizes import size_in_full

# Seconds between two checks of the free space.
_INTERVAL = 1.0


@command("watch")
@TARGET
@click.argument("threshold", type=SIZE, required=False, metavar="[THRESHOLD]")
@JSON
def watch_command(target: str, threshold: int | None, as_json: bool) -> None:
    """Show total and free space of the filesystem that holds a cowfile.

    TARGET is a served device (URI, SOCKET or DEVICE), COW a cowfile. With THRESHOLD it waits until
    less than that is free, and then says so.

    \b
    Examples:
      cowcloop cow watch disk.cow
      cowcloop cow watch /dev/nbd0 500M && echo almost full | mail root
    """
    from cowcloop.cli.target import cowfile_place

    path = cowfile_place(target)
    while True:
        space = os.statvfs(path)
        free = space.f_bavail * space.f_frsize
        if threshold is None or free < threshold:
            break
        time.sleep(_INTERVAL)
    total = space.f_blocks * space.f_frsize
    if as_json:
        console.result_json({"path": path, "total": total, "free": free})
    else:
        console.fields(
            [("cowfile", path), ("total", size_in_full(total)), ("free", size_in_full(free))]
        )
