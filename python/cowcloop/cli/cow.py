"""cow: what can be done with a cowfile by itself."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import (
    CONTEXT,
    FORCE,
    IMAGE,
    JSON,
    PATH,
    SIZE,
    SOME_COWS,
    CommonOptions,
    command,
)
from cowcloop.cli.completion import served_or_file
from cowcloop.cli.extract import check_input, check_output
from cowcloop.cli.progress import progress
from cowcloop.errors import InvalidInputError, StorageError
from cowcloop.files import same
from cowcloop.sizes import format_size

if TYPE_CHECKING:
    from cowcloop.registry import Entry

# Seconds between two looks at a filesystem whose free space is watched.
_WATCH_INTERVAL = 1.0

_COW = click.argument("cow", type=PATH)
_TARGET = click.argument("target", metavar="TARGET|COW", type=PATH, shell_complete=served_or_file)


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


@command("repair")
@_COW
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
    console.line(f"{cow}: {_blocks(found['found'])} {would}")
    if found["missing"]:
        would = "to be given up" if dry_run else "given up"
        console.line(f"{cow}: {_blocks(found['missing'])} that the file ends before {would}")
    console.note(f"{cow}: the bitmap knew {_blocks(found['known'])}")
    console.note(f"{cow}: the head counted {found['cowused_before']}")
    if found["backup"]:
        console.line(f"{found['backup']}: head and bitmap as they were")
    console.warning(f"{cow}: blocks that were written with zeros show the base again")


@command("merge")
@click.argument("raw", type=PATH)
@_COW
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
        if _core.cow_info(cow)["state"] != "clean":
            error.args = (f"{raw} is changed in part; merge again to complete it",)
        raise
    if done["already"] and not as_json:
        console.done(f"{raw}: holds all of these blocks already: nothing was written")
        return
    again = " (an interrupted merge was completed)" if done["resumed"] else ""
    console.outcome(as_json, raw, done, f"{_blocks(done['blocks'])} written{again}")


@command("rebase")
@IMAGE
@SOME_COWS
@click.option("--old", type=PATH, metavar="OLD", help="The image that COW was made on.")
@click.option("--trust-base", is_flag=True, help="Compare size and fingerprint alone.")
@JSON
def rebase_command(
    image: str, cows: tuple[str, ...], old: str | None, trust_base: bool, as_json: bool
) -> None:
    """Make COW fit IMAGE, which holds the same device as the image that it was made on.

    IMAGE may be that image extracted, or compressed anew. --old OLD compares the two, byte for
    byte. Without the old image, --trust-base compares what the original driver did: the size, and
    the sums of four blocks. An image with other content may well have the same, and what is
    written over that is lost. Cowfiles below COW, which are made to fit first, come before it.

    \b
    Examples:
      cowcloop cow rebase chicken.raw chicken.cow --old chicken
      cowcloop cow rebase chicken.raw chicken.cow --trust-base
      cowcloop cow rebase chicken.raw course.cow anna.cow --old chicken
    """
    from cowcloop import _core
    from cowcloop.source import locate

    if (old is None) != trust_base:
        raise click.UsageError("give one of --old OLD, to compare with, and --trust-base")
    *lower, cow = cows
    source = None if old is None else locate(old)
    with progress("comparing") as report:
        done = _core.cow_rebase(locate(image), lower, cow, old=source, progress=report)
    if not done["changed"] and not as_json:
        console.done(f"{cow}: fits {image} already: nothing was changed")
        return
    how = "the same, byte for byte" if old is not None else "the same size and fingerprint"
    console.outcome(as_json, cow, done, f"fits {image}: {how}")


@command("pack")
@_COW
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
    sizes = f"{_blocks(done['blocks_used'])} in {format_size(done['bytes'])}"
    console.outcome(as_json, out, done, sizes)


@command("unpack")
@click.argument("src", type=PATH)
@_COW
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
    console.outcome(as_json, cow, done, _blocks(done["blocks_used"]))


@command("watch")
@_TARGET
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
        time.sleep(_WATCH_INTERVAL)
    total = space.f_blocks * space.f_frsize
    if as_json:
        console.result_json({"path": path, "total": total, "free": free})
    else:
        console.fields([("cowfile", path), ("total", _bytes(total)), ("free", _bytes(free))])


@command("snapshot")
@_TARGET
@click.argument("new", type=PATH)
@click.option(
    "--session",
    metavar="NAME",
    help="The session, of a device that has them (default: the one that the URI names).",
)
@click.option("--force", is_flag=True, help="Replace NEW when it is there.")
@JSON
def snapshot_command(
    target: str, new: str, session: str | None, force: bool, as_json: bool
) -> None:
    """Copy a cowfile as it is at one moment, also while it is written.

    TARGET is a served device (URI, SOCKET or DEVICE): everything acknowledged until now is in the
    copy, and clients go on writing. COW is a cowfile, in use or not. Where the filesystem can, the
    two files share their blocks. NEW must not exist, unless --force replaces it.

    \b
    Examples:
      cowcloop cow snapshot disk.cow monday.cow
      cowcloop cow snapshot "$uri" monday.cow
      cowcloop cow snapshot "$uri" --session anna anna-monday.cow
    """
    from cowcloop.cli.target import device_of, one_session

    if os.path.lexists(new) and not force:
        message = f"{new} exists: choose another name, or replace it with --force"
        raise StorageError(errno.EEXIST, message)
    entry, named = device_of(target)
    if entry is not None:
        session = one_session(target, named, session)
    elif session is not None:
        raise click.UsageError("--session goes with a served device, not with a cowfile")
    elif same(target, new):
        raise InvalidInputError(f"{new}: is also an input: name another output")
    with _beside(new, force) as path:
        done = _snapshot_of(entry, session, target, path)
    how = "shared with the original" if done["shared"] else "copied"
    console.outcome(as_json, new, done, f"{_blocks(done['blocks_used'])}, {how}")


def _snapshot_of(
    entry: Entry | None, session: str | None, target: str, path: str
) -> dict[str, Any]:
    from cowcloop import _core, server

    if entry is None:
        with progress("copying") as report:
            return _core.cow_snapshot(target, path, progress=report)
    path = os.path.abspath(path)
    if os.fsencode(path).decode(errors="replace") != path:
        message = f"{path}: a served device takes a name in UTF-8 only: choose another"
        raise StorageError(errno.EILSEQ, message)
    try:
        return server.request(entry, "snapshot", path=path, session=session)
    except server.ServerError as error:
        if entry.owner is None:
            raise
        beside = "the user of its unit writes the copy: name a file beside the cowfile"
        raise server.ServerError(f"{error}: {beside}") from None


@contextlib.contextmanager
def _beside(new: str, replaced: bool) -> Iterator[str]:
    """The name under which a file is made: another one when it is to replace `new`."""
    from cowcloop import _core

    if not (replaced and os.path.lexists(new)):
        yield new
        return
    if not os.path.isfile(new):
        raise InvalidInputError(f"{new}: not a file: choose another name")
    place = os.path.realpath(new)
    part = os.path.join(os.path.dirname(place), f".cowcloop-{secrets.token_hex(12)}.part")
    try:
        yield part
        _core.take_place(part, place)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


def _blocks(count: int) -> str:
    return f"{count} block" if count == 1 else f"{count} blocks"


def _bytes(size: int) -> str:
    return f"{format_size(size)} ({size} bytes)"


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
