"""Where a server ends: is everything on disk, the cowfile closed, and still there?"""

from __future__ import annotations

import os

from cowcloop import _core, control
from cowcloop.control import ControlError
from cowcloop.errors import ImageFormatError
from cowcloop.locks import is_locked
from cowcloop.server.errors import ServerError

# Seconds for a server to tell its state; one that is about to end may be busy.
_STATUS_TIMEOUT = 5.0


def removed_cowfile(channel: str | os.PathLike[str]) -> str | None:
    """A cowfile of a running server that has been removed, or replaced by another, if one has."""
    try:
        status = control.request(channel, "status", timeout=_STATUS_TIMEOUT)
    except ControlError:
        return None
    cowfiles = [*status["cowfiles"], *status.get("sessions", ())]
    return next((cowfile["path"] for cowfile in cowfiles if cowfile["state"] == "removed"), None)


def check_closed(cow: str | None) -> None:
    """ServerError when a cowfile was not closed; None stands for a device that has none."""
    if cow is None or not os.path.exists(cow):
        return
    # Somebody may have opened it already, and then it is theirs.
    if _state(cow) in ("clean", None) or is_locked(cow):
        return
    # Nor do they have it now; if they had, they have closed it.
    state = _state(cow)
    if state not in ("clean", None):
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
