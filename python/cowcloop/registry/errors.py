"""The error of the registry."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from cowcloop.errors import CowcloopError


class RegistryError(CowcloopError):
    """The directory of served devices cannot be used, or has no such device."""


@contextlib.contextmanager
def blamed_on(root: Path) -> Iterator[None]:
    """What fails in the block fails because the registry's directory is full or not writable."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        room = "make room, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise RegistryError(
            f"{root}: nothing can be noted there: {error.strerror}: {room}set XDG_RUNTIME_DIR "
            "to another directory of your own"
        ) from None
