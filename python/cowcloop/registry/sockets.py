"""Unix sockets that a server which has ended may have left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

#: sun_path holds 108 bytes with the final NUL.
SOCKET_PATH_LIMIT = 107


def remove_dead_socket(path: str) -> bool:
    """Remove a Unix socket that no program listens on; whether it was removed."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect(path)
    except ConnectionRefusedError:
        with contextlib.suppress(OSError):
            os.unlink(path)
            return True
    except OSError:
        pass
    return False
