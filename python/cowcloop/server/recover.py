"""Another server in the place of one that was killed, hangs, or is to be replaced: recover."""

from __future__ import annotations

import os
import signal
import time

from cowcloop import control, registry
from cowcloop.control import ControlError, Silent
from cowcloop.registry import Record
from cowcloop.server.errors import ServerError

# Seconds between two looks whether another server answers.
_PAUSE = 0.05
# Seconds for a server to say which process it is: it answers that from memory.
_TIMEOUT = 5.0


def recover(entry: registry.Entry) -> None:
    """Have a device's supervisor start another server; returns when that answers.

    What was acknowledged is there, and requests wait meanwhile. ServerError for a device without a
    supervisor, for one that would end with its server, and when the device has ended.
    """
    record = entry.record
    if record is None:
        raise ServerError(f"{entry.id} is still being started")
    _check(record)
    try:
        process = os.pidfd_open(record.pid)
    except ProcessLookupError:
        raise ServerError(f"{record.uri}: its supervisor has ended too") from None
    try:
        before, there = _server(entry, record)
        # Without a server one is being started already.
        if there and entry.alive():
            signal.pidfd_send_signal(process, signal.SIGUSR1)
        while True:
            now, _ = _server(entry, record)
            if now not in (None, before):
                return
            if not entry.alive():
                raise ServerError(f"{record.uri}: no server could take over: see the system log")
            time.sleep(_PAUSE)
    finally:
        os.close(process)


def _check(record: Record) -> None:
    """Refuse a device whose users would see its server end."""
    if not record.supervised:
        again = "detach it, and attach it again"
        if record.mount is not None:
            again = "unmount it, and mount it again"
        raise ServerError(
            f"{record.mount or record.uri}: its server has no supervisor, and clients would see it "
            f"end: {again}"
        )
    if record.irreplaceable is not None:
        raise ServerError(f"{record.uri}: {record.irreplaceable}: nothing was done")


def _server(entry: registry.Entry, record: Record) -> tuple[int | None, bool]:
    """The process that answers, if one does, and whether there is one, be it stopped or hung."""
    try:
        return int(control.status(entry.control, record, timeout=_TIMEOUT)["pid"]), True
    except Silent:
        return None, True
    except ControlError:
        return None, False
