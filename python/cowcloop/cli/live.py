"""suspend, resume and reopen: commands on a device while it is served."""

from __future__ import annotations

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import SESSION, command
from cowcloop.cli.completion import served

_TARGET = click.argument("target", metavar="TARGET", shell_complete=served)


@command("suspend")
@_TARGET
def suspend_command(target: str) -> None:
    """Let go of a device's image, so that its medium can be taken out.

    TARGET is a served device (URI, SOCKET or DEVICE). Reads that need the image wait until
    "resume", and the cowfile goes on. Each read that waits keeps a thread of nbdkit's, and a
    client that writes needs some of these for its flushes: of its reads twelve wait (three on
    one processor, 128 of a kernel's NBD device), and more than these fail.

    \b
    Examples:
      cowcloop suspend "$uri"
    """
    from cowcloop import registry, server

    server.request(registry.find_whole(target, "suspend"), "suspend")
    console.note(f"{target}: suspended; the medium can be changed")


@command("resume")
@_TARGET
def resume_command(target: str) -> None:
    """Open a suspended device's image again; it must be the same one.

    \b
    Examples:
      cowcloop resume "$uri"
    """
    from cowcloop import registry, server

    server.request(registry.find_whole(target, "resume"), "resume")
    console.note(f"{target}: resumed")


@command("reopen")
@_TARGET
@click.option("--read-only", is_flag=True, required=True, help="Refuse writes from now on.")
@SESSION
def reopen_command(target: str, read_only: bool, session: str | None) -> None:
    """Close the cowfile of a served device cleanly, and go on read-only.

    The machine can then be shut down with the device still mounted: its cowfile is clean. The
    device is writable again when it is attached anew (a session: when its last client has left).

    \b
    Examples:
      cowcloop reopen --read-only "$uri"
    """
    from cowcloop import registry, server
    from cowcloop.cli.target import one_session

    entry = registry.find(target)
    session = one_session(target, registry.session_in(target, entry), session)
    server.request(entry, "reopen-read-only", session=session)
    console.note(f"{target}: read-only; the cowfile is closed")
