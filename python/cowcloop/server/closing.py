"""After the server has ended: is everything on disk and the cowfile closed?"""

from __future__ import annotations

import fcntl
import os

from cowcloop import _core
from cowcloop.server.errors import ServerError


def check_closed(cow: str | None) -> None:
    """ServerError when a cowfile was not closed; None stands for a device that has none."""
    if cow is None or not os.path.exists(cow):
        return
    # Somebody may have opened it already, and then it is theirs.
    if _core.cow_info(cow)["state"] == "clean" or _is_locked(cow):
        return
    # Nor do they have it now; if they had, they have closed it.
    state = _core.cow_info(cow)["state"]
    if state != "clean":
        raise ServerError(
            f"{cow} was not closed cleanly ({state}): what was flushed is in it; "
            "attach it again to go on"
        )


def _is_locked(cow: str) -> bool:
    """Whether a process has the cowfile open to write to it: it holds the file's flock."""
    handle = os.open(cow, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
