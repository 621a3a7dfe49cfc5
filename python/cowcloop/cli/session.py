"""session: the sessions of a served image, while it is served."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import CONTEXT, FORCE, JSON, PATH, THREADS, CommonOptions, command
from cowcloop.cli.commit import commit
from cowcloop.cli.completion import served
from cowcloop.cli.compression import level_option
from cowcloop.cli.cow.snapshot import make_copy, refuse_existing
from cowcloop.cli.device_options import options_of
from cowcloop.cli.extract import check_output
from cowcloop.errors import CowcloopError
from cowcloop.options import ImageKeywords, normal
from cowcloop.sizes import format_size

if TYPE_CHECKING:
    from cowcloop.registry import Entry, Record

_TARGET = click.argument("target", metavar="TARGET", type=PATH, shell_complete=served)
_NAME = click.argument("name", metavar="NAME")


class SessionGroup(CommonOptions, click.RichGroup):  # type: ignore[misc]
    """The commands on sessions."""


@click.group("session", cls=SessionGroup, context_settings=CONTEXT)
def session_command() -> None:
    """List, reset, copy and commit the sessions of a served image.

    TARGET is what "cowcloop serve IMAGE --sessions DIR" serves (URI or SOCKET). The other sessions
    go on meanwhile.

    \b
    Examples:
      cowcloop session list class.sock
      cowcloop session reset class.sock pc17
      cowcloop session snapshot class.sock pc17 monday.cow
      cowcloop session commit class.sock teacher course.cloop
    """


@command("list")
@_TARGET
@JSON
def list_command(target: str, as_json: bool) -> None:
    """List the sessions: their clients, their state, and how much was changed.

    \b
    Examples:
      cowcloop session list class.sock
    """
    entry, record = _served(target)
    sessions = _sessions(entry, record)
    if as_json:
        console.result_json(sessions)
        return
    rows = [
        (each["name"], str(each["connections"]), each["state"], _changed(each)) for each in sessions
    ]
    if rows:
        console.table(("SESSION", "CLIENTS", "STATE", "CHANGED"), rows)
    else:
        console.note(f"{target}: no sessions yet")


@command("reset")
@_TARGET
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All sessions.")
@click.option("--force", is_flag=True, help="Cut off the clients that have the session open.")
def reset_command(target: str, names: tuple[str, ...], every: bool, force: bool) -> None:
    """Discard what was written in a session: it begins anew from the image.

    A session that clients have open is refused without --force. With it their connections get
    errors from then on, and the next one finds the image as it is.

    \b
    Examples:
      cowcloop session reset class.sock pc17 pc18
      cowcloop session reset class.sock --all --force
    """
    from cowcloop import server

    if bool(names) == every:
        raise click.UsageError("name the sessions, or --all of them")
    entry, record = _served(target)
    if every:
        names = tuple(each["name"] for each in _sessions(entry, record))
    failed = []
    for name in names:
        try:
            server.request(entry, "reset", session=name, force=force)
            console.note(f"{name}: begins anew")
        except server.ServerError as error:
            failed.append(error)
    for other in failed[1:]:
        console.error(str(other))
    if failed:
        raise failed[0]


@command("snapshot")
@_TARGET
@_NAME
@click.argument("new", type=PATH)
@click.option("--force", is_flag=True, help="Replace NEW when it is there.")
@JSON
def snapshot_command(target: str, name: str, new: str, force: bool, as_json: bool) -> None:
    """Copy a session's cowfile as it is at one moment, while clients write.

    As "cowcloop cow snapshot TARGET NEW --session NAME".

    \b
    Examples:
      cowcloop session snapshot class.sock pc17 monday.cow
    """
    refuse_existing(new, force)
    entry, _ = _served(target)
    make_copy(entry, name, target, new, force, as_json)


@command("commit")
@_TARGET
@_NAME
@click.argument("new", type=PATH)
@level_option("How hard changed blocks are compressed (default: 8).")
@options_of(ImageKeywords)
@THREADS
@FORCE
@JSON
def commit_command(
    target: str,
    name: str,
    new: str,
    level: int | str,
    threads: int | None,
    force: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Write the image with the changes of one session to the compressed image NEW.

    The session is taken as it is at one moment; its clients go on, and it keeps its changes.
    What they have not flushed yet is not in NEW: shut the machine down, or run sync there, first.
    The image is read as its server reads it; options of an image change that for this command.

    \b
    Examples:
      cowcloop session commit class.sock teacher course.cloop
    """
    check_output(new, as_json)
    entry, record = _served(target)
    with _copy(entry, record, name) as cow:
        commit(
            record.source or record.image,
            (cow,),
            new,
            level=level,
            threads=threads,
            force=force,
            as_json=as_json,
            **{**record.image_options, **normal(ImageKeywords, values)},
        )


for _made in (list_command, reset_command, snapshot_command, commit_command):
    session_command.add_command(_made)


def _served(target: str) -> tuple[Entry, Record]:
    """A device that has sessions, and its record."""
    from cowcloop import registry

    entry = registry.find_whole(target, "session")
    record = entry.record
    if record is None:
        raise CowcloopError(f"{target}: is still being started")
    if not record.sessions:
        raise CowcloopError(f"{target}: has no sessions: it is served without --sessions")
    return entry, record


def _sessions(entry: Entry, record: Record) -> list[dict[str, Any]]:
    from cowcloop import control

    sessions: list[dict[str, Any]] = control.status(entry.control, record)["sessions"]
    return sessions


def _changed(session: dict[str, Any]) -> str:
    if "blocks_used" in session:
        return format_size(session["blocks_used"] * 1024)
    # A file that is not open: its blocks are not counted.
    return format_size(session.get("allocated", 0))


@contextlib.contextmanager
def _copy(entry: Entry, record: Record, name: str) -> Iterator[str]:
    """A session's cowfile as it is now, beside it, where it may share its blocks."""
    from cowcloop import server

    # No session has a name that begins with a dot.
    path = os.path.join(record.sessions or "", f".cowcloop-{secrets.token_hex(12)}.cow")
    try:
        server.request(entry, "snapshot", path=os.path.abspath(path), session=name)
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
