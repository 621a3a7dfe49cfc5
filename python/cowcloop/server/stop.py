"""The end of a device that is served in the background: detach."""

from __future__ import annotations

import os
import shlex
import signal

from cowcloop import registry
from cowcloop.control import ControlError
from cowcloop.server import block_device
from cowcloop.server.closing import STATUS_TIMEOUT, check_closed, removed_cowfile
from cowcloop.server.errors import ServerError


def check_kept(entry: registry.Entry, *, discard: bool = False) -> bool:
    """Whether all that was written to a served device is still there when that has ended.

    ServerError when it is not, unless it may be discarded.
    """
    record = entry.record
    if record is None:
        return True
    try:
        removed = removed_cowfile(entry.control, record, STATUS_TIMEOUT)
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


def detach(entry: registry.Entry, *, discard: bool = False) -> None:
    """End a served device; returns when all is on disk and its process is gone.

    A device whose cowfile was removed is refused, unless its changes may be discarded.
    """
    record = entry.record
    if record is None:
        raise ServerError(f"{entry.id} is still being started")
    try:
        process = os.pidfd_open(record.pid)
    except ProcessLookupError:
        block_device.clean_up(record)
        entry.remove()
        raise ServerError(f"{record.uri}: the server has ended by itself already") from None
    try:
        kept = check_kept(entry, discard=discard)
        block_device.let_go(record)
        # The lock says that the process is still the server, and not another with its number.
        if entry.alive():
            signal.pidfd_send_signal(process, signal.SIGTERM)
        entry.wait_until_gone()
    finally:
        os.close(process)
    entry.remove()
    check_closed(record.last_cowfile if kept and not record.read_only else None)
