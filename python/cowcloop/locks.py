"""Locks of files (flock): a process that holds one is alive, whatever its number."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import StrPath


def is_locked(path: StrPath, flags: int = os.O_RDONLY) -> bool:
    """Whether a process holds a file's exclusive lock; OSError when it cannot be opened so."""
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
