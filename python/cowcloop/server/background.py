"""A device served in the background: attach, and what ends it, detach."""

from __future__ import annotations

import os
import shlex
import signal
from typing import Any

from cowcloop import control, runtime
from cowcloop.control import ControlError
from cowcloop.files import MEMORY
from cowcloop.server import closing, nbd_client, units
from cowcloop.server.closing import check_closed, removed_cowfile
from cowcloop.server.errors import ServerError
from cowcloop.server.loop import Loop
from cowcloop.server.options import ServeOptions
from cowcloop.server.process import Report
from cowcloop.server.start import started

# Seconds for a server to tell its state. It may be writing much to a slow medium.
_STATUS_TIMEOUT = 60.0


def attach(
    options: ServeOptions,
    *,
    report: Report,
    loop: Loop | None = None,
    log: str | None = None,
    keep: bool = True,
) -> runtime.Entry:
    """Serve a device from a process that outlives this one; returns when it is ready.

    Without `keep` the caller has systemd end it in order (units.keep), when more is known of it.
    """
    with started(options, loop=loop or Loop(), report=report, background=True, log=log) as (
        nbdkit,
        entry,
    ):
        if keep:
            units.keep(entry)
        nbdkit.release()
    nbdkit.abandon()
    return entry


def check_kept(entry: runtime.Entry, *, discard: bool = False) -> bool:
    """Whether all that was written to a served device is still there when that has ended.

    ServerError when it is not, unless it may be discarded.
    """
    record = entry.record
    if record is None:
        return True
    try:
        removed = removed_cowfile(entry.control, record, _STATUS_TIMEOUT)
    except ControlError as error:
        if discard:
            return False
        raise ServerError(f"{record.uri}: {error}; try again, or give --discard") from None
    if removed is not None and not discard:
        session = "" if removed.session is None else f" --session {removed.session}"
        raise ServerError(
            f"{removed.path}: removed or replaced while it is served: save its changes with: "
            f"cowcloop cow snapshot{session} {shlex.quote(record.uri)} FILE; or give --discard"
        )
    return removed is None


def failures(entry: runtime.Entry) -> int:
    """How many writes and flushes of a served device have failed since it was attached."""
    record = entry.record
    return 0 if record is None else closing.failures(entry.control, record, _STATUS_TIMEOUT)


def detach(entry: runtime.Entry, *, discard: bool = False) -> None:
    """End a served device; returns when all is on disk and its process is gone.

    One whose cowfile somebody has removed is refused, unless its changes may be discarded.
    """
    record = entry.record
    if record is None:
        raise ServerError(f"{entry.id} is still being started")
    try:
        process = os.pidfd_open(record.pid)
    except ProcessLookupError:
        entry.remove()
        raise ServerError(f"{record.uri}: the server has ended by itself already") from None
    try:
        kept = check_kept(entry, discard=discard)
        if record.device is not None:
            nbd_client.disconnect(record.device)
        # The lock says that the process is still the server, and not another with its number.
        if entry.alive():
            signal.pidfd_send_signal(process, signal.SIGTERM)
        entry.wait_until_gone()
    finally:
        os.close(process)
    entry.remove()
    last = record.cowfiles[-1] if record.cowfiles else MEMORY
    check_closed(last if kept and not record.read_only and last != MEMORY else None)


def sync(entry: runtime.Entry) -> None:
    """Bring everything that a served device has acknowledged to disk."""
    request(entry, "sync")


def request(entry: runtime.Entry, command: str, /, **fields: Any) -> dict[str, Any]:
    """One command of the control channel; ServerError names the device."""
    if entry.record is None:
        raise ServerError(f"{entry.id} is still being started")
    try:
        return control.request(entry.control, command, **fields)
    except ControlError as error:
        raise ServerError(f"{entry.record.uri}: {error}") from None
