"""commit: a new image with the changes of cowfiles in it."""

from __future__ import annotations

import errno
import os
from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import FORCE, IMAGE, JSON, PATH, SOME_COWS, THREADS, command
from cowcloop.cli.compression import BLOCK_SIZE_OF_RAW, level_option
from cowcloop.cli.create import warn
from cowcloop.cli.device_options import options_of
from cowcloop.cli.extract import check_output
from cowcloop.cli.progress import progress
from cowcloop.errors import StorageError
from cowcloop.files import same
from cowcloop.options import ImageKeywords
from cowcloop.sizes import format_size


@command("commit")
@IMAGE
@SOME_COWS
@click.argument("new", type=PATH)
@click.option("--rebase", type=PATH, metavar="COW2", help="Make an empty COW2 for NEW.")
@level_option("How hard changed blocks are compressed (default: 8).")
@BLOCK_SIZE_OF_RAW
@options_of(ImageKeywords)
@THREADS
@FORCE
@JSON
def commit_command(
    image: str,
    cows: tuple[str, ...],
    new: str,
    rebase: str | None,
    level: int | str,
    block_size: int,
    threads: int | None,
    force: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Write IMAGE with the changes in COW to the compressed image NEW.

    Blocks that were not changed keep their compressed bytes, so it costs a copy and the blocks
    that were. NEW is checked, and complete or not there; IMAGE and COW stay as they are. COW does
    not fit NEW, which has its changes already: --rebase makes an empty cowfile that does, when NEW
    is there. A crash between the two leaves NEW alone, for which attach makes COW2.

    \b
    Examples:
      cowcloop commit chicken chicken.cow chicken2
      cowcloop commit chicken course.cow anna.cow chicken-anna
      cowcloop commit chicken chicken.cow chicken2 --rebase chicken2.cow
    """
    check_output(new, as_json)
    if rebase is not None:
        _check_rebase(rebase, new)
    commit(
        image,
        cows,
        new,
        level=level,
        block_size=block_size,
        threads=threads,
        force=force,
        as_json=as_json,
        **values,
    )
    if rebase is not None:
        from cowcloop import _core

        _core.Device(new, [rebase], create=True).close()


def commit(
    image: str,
    cows: tuple[str, ...],
    new: str,
    *,
    level: int | str,
    block_size: int = 65536,
    threads: int | None,
    force: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Make the new image, and report of it."""
    from cowcloop import _core
    from cowcloop.block_size import padding_warning, unusual
    from cowcloop.source import locate, shown

    source = locate(image, **values)
    image = shown(image)
    raw = _core.sniff(source) == "raw"
    with progress("committing") as report:
        done = _core.commit(
            source,
            list(cows),
            new,
            level=level,
            block_size=block_size,
            threads=threads,
            force=force,
            progress=report,
        )
    warn(unusual(image, done["block_size"], False))
    # A compressed image keeps its block size.
    remedy = "--block-size {}" if raw else ""
    warn(padding_warning(image, done["input_size"], done["block_size"], remedy))
    fresh = done["blocks"] - done["copied_blocks"]
    size = format_size(done["file_size"])
    text = f"{size}, {done['copied_blocks']} blocks copied, {fresh} compressed"
    console.outcome(as_json, new, done, text)


def _check_rebase(rebase: str, new: str) -> None:
    """Refuse a place where no empty cowfile can be made, before the work begins."""
    if new == "-":
        raise click.UsageError("--rebase needs the name of NEW, not -")
    if same(rebase, new):
        raise click.UsageError(f"--rebase {rebase}: NEW is to be there: choose another name")
    if os.path.lexists(rebase):
        raise StorageError(errno.EEXIST, f"{rebase} exists: choose another name for --rebase")
    folder = os.path.dirname(os.path.abspath(rebase))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(errno.EACCES, f"{rebase}: no cowfile can be made in {folder}")
