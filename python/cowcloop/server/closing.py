"""After the server has ended: is everything on disk and the cowfile closed?"""

from __future__ import annotations

import os

from cowcloop import _core
from cowcloop.locks import is_locked
from cowcloop.server.errors import ServerError


def check_closed(cow: str | None) -> None:
    """ServerError when a cowfile was not closed; None stands for a device that has none."""
    if cow is None or not os.path.exists(cow):
        return
    # Somebody may have opened it already, and then it is theirs.
    if _core.cow_info(cow)["state"] == "clean" or is_locked(cow):
        return
    # Nor do they have it now; if they had, they have closed it.
    state = _core.cow_info(cow)["state"]
    if state != "clean":
        raise ServerError(
            f"{cow} was not closed cleanly ({state}): what was flushed is in it; "
            "attach it again to go on"
        )
