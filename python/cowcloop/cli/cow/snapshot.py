"""cow snapshot: a copy of a cowfile at one moment."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import JSON, PATH, SESSION, command
from cowcloop.cli.cow.arguments import TARGET, blocks
from cowcloop.cli.progress import progress
from cowcloop.errors import InvalidInputError, StorageError
from cowcloop.files import same

if TYPE_CHECKING:
    from cowcloop.registry import Entry


@command("snapshot")
@TARGET
@click.argument("new", type=PATH)
@SESSION
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

    refuse_existing(new, force)
    entry, named = device_of(target)
    if entry is not None:
        session = one_session(target, named, session)
    elif session is not None:
        raise click.UsageError("--session goes with a served device, not with a cowfile")
    elif same(target, new):
        raise InvalidInputError(f"{new}: is also an input: name another output")
    make_copy(entry, session, target, new, force, as_json)


def refuse_existing(new: str, force: bool) -> None:
    """Refuse a name that another file has, unless it is to be replaced."""
    if os.path.lexists(new) and not force:
        message = f"{new} exists: choose another name, or replace it with --force"
        raise StorageError(errno.EEXIST, message)


def make_copy(
    entry: Entry | None, session: str | None, target: str, new: str, force: bool, as_json: bool
) -> None:
    """Copy the cowfile of a device, or of one of its sessions, or one that is not in use."""
    with _beside(new, force) as path:
        done = _snapshot_of(entry, session, target, path)
    how = "shared with the original" if done["shared"] else "copied"
    console.outcome(as_json, new, done, f"{blocks(done['blocks_used'])}, {how}")


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
