"""cow: commands on a cowfile by itself, one file per command."""

from __future__ import annotations

import rich_click as click

from cowcloop.cli.base import CONTEXT, CommonOptions
from cowcloop.cli.cow.merge import merge_command
from cowcloop.cli.cow.pack import pack_command, unpack_command
from cowcloop.cli.cow.rebase import rebase_command
from cowcloop.cli.cow.repair import repair_command
from cowcloop.cli.cow.snapshot import snapshot_command
from cowcloop.cli.cow.watch import watch_command


class CowGroup(CommonOptions, click.RichGroup):  # type: ignore[misc]
    """The commands on cowfiles."""


@click.group("cow", cls=CowGroup, context_settings=CONTEXT)
def cow_command() -> None:
    """Repair, merge, pack, watch and copy cowfiles.

    \b
    Examples:
      cowcloop cow repair --dry-run old.cow
      cowcloop cow merge disk.raw disk.cow
      cowcloop cow rebase disk.raw disk.cow --old disk.cloop
      cowcloop cow pack --gzip disk.cow disk.cow.gz
      cowcloop cow snapshot disk.cow monday.cow
    """


for _made in (
    repair_command,
    merge_command,
    rebase_command,
    pack_command,
    unpack_command,
    watch_command,
    snapshot_command,
):
    cow_command.add_command(_made)
