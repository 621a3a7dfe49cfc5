"""cow merge: the changes go into the raw image itself."""

from __future__ import annotations

import sys

import rich_click as click

from cowcloop import states
from cowcloop.cli import console
from cowcloop.cli.base import JSON, PATH, command
from cowcloop.cli.cow.arguments import COW, blocks
from cowcloop.cli.progress import progress
from cowcloop.sizes import format_size


@command("merge")
@click.argument("raw", type=PATH)
@COW
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@JSON
def merge_command(raw: str, cow: str, yes: bool, as_json: bool) -> None:
    """Write the changes in COW into RAW, the image that it was made for.

    RAW is changed for good: it is asked first, or --yes is given. COW stays as it is. A merge that
    was interrupted is completed by running it again, with the same RAW; until then COW serves for
    nothing else. For a compressed image there is "commit"; for a COW on other cowfiles, "extract".

    \b
    Examples:
      cowcloop cow merge disk.raw disk.cow
      cowcloop cow merge --yes disk.raw disk.cow
    """
    from cowcloop import _core
    from cowcloop.signals import Interrupted

    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError(f"{raw} would be changed for good: give --yes")
        info = _core.cow_info(cow)
        size = format_size(info["blocks_used"] * info["mapunit"])
        if not click.confirm(f"Write {size} into {raw} for good?", err=True):
            console.error("nothing was changed")
            raise SystemExit(1)
    try:
        with progress("merging") as report:
            done = _core.cow_merge(raw, cow, progress=report)
    except Interrupted as error:
        if _core.cow_info(cow)["state"] != states.CLEAN:
            error.args = (f"{raw} is changed in part; merge again to complete it",)
        raise
    if done["already"] and not as_json:
        console.done(f"{raw}: holds all of these blocks already: nothing was written")
        return
    again = " (an interrupted merge was completed)" if done["resumed"] else ""
    console.outcome(as_json, raw, done, f"{blocks(done['blocks'])} written{again}")
