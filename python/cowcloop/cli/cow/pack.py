"""cow pack and cow unpack: a cowfile without its holes, and back."""

from __future__ import annotations

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import FORCE, JSON, PATH, command
from cowcloop.cli.cow.arguments import COW, blocks
from cowcloop.cli.extract import check_input, check_output
from cowcloop.cli.progress import progress
from cowcloop.sizes import format_size


@command("pack")
@COW
@click.argument("out", type=PATH)
@click.option("-z", "--gzip", is_flag=True, help="Compress the whole with gzip.")
@FORCE
@JSON
def pack_command(cow: str, out: str, gzip: bool, force: bool, as_json: bool) -> None:
    """Write COW to OUT without its holes, to send or keep it.

    The format is that of the original cowpack. COW must be clean. OUT is complete or not there; -
    is standard output.

    \b
    Examples:
      cowcloop cow pack disk.cow disk.packed
      cowcloop cow pack -z disk.cow - | ssh host "cowcloop cow unpack - disk.cow"
    """
    from cowcloop import _core

    check_output(out, as_json)
    with progress("packing") as report:
        done = _core.cow_pack(cow, out, gzip=gzip, force=force, progress=report)
    sizes = f"{blocks(done['blocks_used'])} in {format_size(done['bytes'])}"
    console.outcome(as_json, out, done, sizes)


@command("unpack")
@click.argument("src", type=PATH)
@COW
@FORCE
@JSON
def unpack_command(src: str, cow: str, force: bool, as_json: bool) -> None:
    """Make a cowfile COW again of the packed SRC, gzipped or not.

    COW is complete or not there; - as SRC is standard input.

    \b
    Examples:
      cowcloop cow unpack disk.packed disk.cow
      cowcloop cow unpack disk.cow.gz disk.cow
    """
    from cowcloop import _core

    check_input(src)
    with progress("unpacking") as report:
        done = _core.cow_unpack(src, cow, force=force, progress=report)
    console.outcome(as_json, cow, done, blocks(done["blocks_used"]))
