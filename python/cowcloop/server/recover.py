"""Another server in the place of one that was killed, or is to be replaced: recover."""

from __future__ import annotations

import os
import signal
import time

from cowcloop import control, registry
from cowcloop.control import ControlError
from cowcloop.registry import Record
from cowcloop.server.closing import STATUS_TIMEOUT
from cowcloop.server.errors import ServerError

# Seconds between two looks whether another server answers.
_PAUSE = 0.05


def recover(entry: registry.Entry) -> None:
    """Have a device's supervisor start another server; returns when that answers.

    What was acknowledged is there, and requests wait meanwhile. ServerError for a device without a
    supervisor, and when the device has ended.
    """
    record = entry.record
    if record is None:
        raise ServerError(f"{entry.id} is still being started")
    before = _server(entry, record)
    if before == record.pid:
        raise ServerError(
            f"{record.uri}: its server has no supervisor, and clients would see it end: detach "
            "it, and attach it again"
        )
    try:
        process = os.pidfd_open(record.pid)
    except ProcessLookupError:
        raise ServerError(f"{record.uri}: its supervisor has ended too") from None
    try:
        # Without a server one is being started already.
        if before is not None and entry.alive():
            signal.pidfd_send_signal(process, signal.SIGUSR1)
        while _server(entry, record) in (None, before):
            if not entry.alive():
                raise ServerError(f"{record.uri}: no server could take over: see the system log")
            time.sleep(_PAUSE)
    finally:
        os.close(process)


def _server(entry: registry.Entry, record: Record) -> int | None:
    """The process that answers, if there is one."""
    try:
        return int(control.status(entry.control, record, timeout=STATUS_TIMEOUT)["pid"])
    except ControlError:
        return None
