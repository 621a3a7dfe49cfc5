"""cow repair: a cowfile that the original driver left dirty."""

from __future__ import annotations

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import JSON, command
from cowcloop.cli.cow.arguments import COW, blocks
from cowcloop.cli.progress import progress


@command("repair")
@COW
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("-f", "--force", is_flag=True, help="Look through a clean cowfile too.")
@JSON
def repair_command(cow: str, dry_run: bool, force: bool, as_json: bool) -> None:
    """Repair a COW that the original cowloop driver left dirty, or cut short on a full disk.

    The blocks that hold data and that the stale bitmap does not know are found again. A block
    that was written with zeros cannot be told from one that never was. Blocks that the file ends
    before, because the driver's disk was full, are given up: they show the base. The head and
    bitmap as they were are kept beside the file. What cowcloop itself left in a crash needs no
    repair.

    \b
    Examples:
      cowcloop cow repair -n disk.cow
      cowcloop cow repair -v disk.cow
      cowcloop cow repair --force disk.cow
    """
    from cowcloop import _core

    with progress("repairing") as report:
        found = _core.cow_repair(cow, dry_run=dry_run, force=force, progress=report)
    if as_json:
        del found["summary"]
        console.result_json({"path": cow, **found})
        return
    if not found["needed"]:
        console.line(f"{cow}: needs no repair")
        return
    would = "to be found again" if dry_run else "found again"
    console.line(f"{cow}: {blocks(found['found'])} {would}")
    if found["missing"]:
        would = "to be given up" if dry_run else "given up"
        console.line(f"{cow}: {blocks(found['missing'])} that the file ends before {would}")
    console.note(f"{cow}: the bitmap knew {blocks(found['known'])}")
    console.note(f"{cow}: the head counted {found['cowused_before']}")
    if found["backup"]:
        console.line(f"{found['backup']}: head and bitmap as they were")
    console.warning(f"{cow}: blocks that were written with zeros show the base again")
