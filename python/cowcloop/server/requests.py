"""Requests to a server in the background while it runs."""

from __future__ import annotations

from typing import Any

from cowcloop import control, registry
from cowcloop.control import ControlError
from cowcloop.server.closing import STATUS_TIMEOUT
from cowcloop.server.errors import ServerError


def failures(entry: registry.Entry) -> int:
    """How many writes and flushes of a served device have failed since it was attached.

    0 for a server that does not answer.
    """
    if entry.record is None:
        return 0
    try:
        status = control.status(entry.control, entry.record, timeout=STATUS_TIMEOUT)
    except ControlError:
        return 0
    cowfiles = (*status["cowfiles"], *status.get("sessions", ()))
    return sum(cowfile.get("failures", 0) for cowfile in cowfiles)


def sync(entry: registry.Entry) -> None:
    """Bring everything that a served device has acknowledged to disk."""
    request(entry, "sync")


def request(entry: registry.Entry, command: str, /, **fields: Any) -> dict[str, Any]:
    """One command of the control channel; ServerError names the device."""
    if entry.record is None:
        raise ServerError(f"{entry.id} is still being started")
    try:
        return control.request(entry.control, command, **fields)
    except ControlError as error:
        raise ServerError(f"{entry.record.uri}: {error}") from None
