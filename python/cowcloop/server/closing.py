"""The end of a server: whether everything is on disk, and the cowfile closed and still there."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cowcloop import _core, control, registry, states
from cowcloop.control import NoAnswer
from cowcloop.errors import ImageFormatError
from cowcloop.locks import is_locked
from cowcloop.server.errors import ServerError

# Seconds for a server to report its state. It may be writing much to a slow medium.
STATUS_TIMEOUT = 60.0


@dataclass(frozen=True)
class Removed:
    """A cowfile that was removed, or replaced by another, while it is served."""

    path: str
    session: str | None


def removed_cowfile(
    channel: str | os.PathLike[str], record: registry.Record, timeout: float
) -> Removed | None:
    """A running server's cowfile that has been removed, if one has.

    None also when it does not answer in time (seconds); ControlError when it refuses.
    """
    try:
        status = control.status(channel, record, timeout=timeout)
    except NoAnswer:
        return None
    for cowfile in (*status["cowfiles"], *status.get("sessions", ())):
        if cowfile["state"] == states.REMOVED:
            return Removed(cowfile["path"], cowfile.get("name"))
    return None


def check_closed(cow: str | None) -> None:
    """ServerError when a cowfile was not closed; None stands for a device that has none."""
    if cow is None or not os.path.exists(cow):
        return
    # Another program may have opened it already: then closing it is up to that program.
    if _state(cow) in (states.CLEAN, None) or is_locked(cow):
        return
    # It is not locked. A program that had it a moment ago has closed it, so look again.
    state = _state(cow)
    if state not in (states.CLEAN, None):
        raise ServerError(
            f"{cow} was not closed cleanly ({state}): what was flushed is in it; "
            "attach it again to go on"
        )


def _state(cow: str) -> str | None:
    """A cowfile's state; None when another file has its name: it was moved."""
    try:
        return str(_core.cow_info(cow)["state"])
    except ImageFormatError:
        return None
