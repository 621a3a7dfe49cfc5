"""The registry's directory, private to one user, and the lock of the whole of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cowcloop.registry.errors import RegistryError, blamed_on
from cowcloop.registry.sockets import SOCKET_PATH_LIMIT

#: Letters in an entry's name.
NAME_LENGTH = 6
# An entry's name, and the longest of the sockets in it.
_LONGEST_INSIDE = len("/") + NAME_LENGTH + len("/control.sock")


def directory() -> Path:
    """The user's registry directory, made when missing and checked to be private."""
    path = _place()
    longest = len(os.fsencode(path)) + _LONGEST_INSIDE
    if longest > SOCKET_PATH_LIMIT:
        raise RegistryError(
            f"{path}: a socket there would have a name of {longest} bytes, and may have at most "
            f"{SOCKET_PATH_LIMIT}: set XDG_RUNTIME_DIR to a directory with a shorter name"
        )
    with contextlib.suppress(FileExistsError), blamed_on(path):
        os.mkdir(path, 0o700)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise RegistryError(f"{path} is not a directory: remove it and try again") from None
    try:
        status = os.fstat(handle)
        if status.st_uid != os.geteuid():
            raise RegistryError(
                f"{path} belongs to another user (uid {status.st_uid}): have it removed, "
                "or set XDG_RUNTIME_DIR to a directory of your own"
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            with blamed_on(path):
                os.fchmod(handle, 0o700)
    finally:
        os.close(handle)
    return path


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Alone with the registry in the block: no other process makes or removes entries."""
    # The directory itself is locked: there is no lock file to leave behind.
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _place() -> Path:
    user = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # Root with the environment of a user (sudo -E) must not leave its directory in that user's.
    # Root's own from a login session goes with the session, and other programs of root's do not
    # look there.
    if runtime and os.path.isabs(runtime) and (user, runtime.rstrip("/")) != (0, "/run/user/0"):
        with contextlib.suppress(OSError):
            if os.stat(runtime).st_uid == user:
                return Path(runtime) / "cowcloop"
    if user == 0 and os.path.isdir("/run"):
        return Path("/run/cowcloop")
    return Path(f"/tmp/cowcloop-{user}")
