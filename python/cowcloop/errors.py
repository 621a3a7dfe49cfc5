"""The errors of this package: :class:`CowcloopError` and its subclasses.

``str(error)`` is always one line that says what failed, where, and what to do. Where an
error is also an ``OSError`` its ``errno`` says the same to programs, and ``filename`` is the file
that the line begins with.
"""

from __future__ import annotations

import errno as _errno
import io as _io
import resource as _resource

__all__ = [
    "AccessError",
    "BusyError",
    "CancelledError",
    "ClusterError",
    "CowcloopError",
    "DamagedError",
    "DirtyError",
    "ExistsError",
    "ImageFormatError",
    "InvalidInputError",
    "MismatchError",
    "NoSpaceError",
    "NotFoundError",
    "PoisonedError",
    "ReadOnlyError",
    "StorageError",
    "UnsupportedError",
]


class CowcloopError(Exception):
    """Everything that this package raises on purpose."""

    #: What to do about it, as the end of the message says it; empty where nothing is known.
    remedy: str = ""

    @property
    def problem(self) -> str:
        """The message without what to do about it."""
        return str(self).removesuffix(f"; {self.remedy}") if self.remedy else str(self)


class _SystemError(CowcloopError, OSError):
    """An error with an ``errno``, shown as its message alone."""

    def __init__(self, errno: int, message: str, filename: str | None = None) -> None:
        super().__init__(errno, message, *(() if filename is None else (filename,)))

    def __str__(self) -> str:
        return str(self.strerror)


class StorageError(_SystemError):
    """The operating system refused: ``errno`` has its reason."""


class NotFoundError(StorageError, FileNotFoundError):
    """A file that should be there is not."""


class AccessError(StorageError, PermissionError):
    """The file's permissions do not allow it."""


class ExistsError(StorageError, FileExistsError):
    """The file in the place of a new one would be lost: a cowfile, or a compressed image."""


class ImageFormatError(CowcloopError, ValueError):
    """The file does not have the format that it should have."""


class UnsupportedError(_SystemError, _io.UnsupportedOperation):
    """A known format's version, compressor or request that is not supported."""


class DamagedError(_SystemError):
    """Stored data does not decode to its original, or is missing."""


class MismatchError(CowcloopError, ValueError):
    """Two files that do not belong together, such as a cowfile of another base."""


class BusyError(_SystemError):
    """The file is in use elsewhere."""


class DirtyError(CowcloopError):
    """A cowfile that needs repair first."""


class NoSpaceError(_SystemError):
    """No space: on the medium, under a limit, or behind the end of the device."""


class ReadOnlyError(_SystemError, _io.UnsupportedOperation):
    """A write to something read-only."""


class InvalidInputError(CowcloopError, ValueError):
    """A request that makes no sense: out of range, or contradictory options."""


class PoisonedError(_SystemError):
    """A sync failed earlier, so the state of the medium is unknown: attach again."""


class CancelledError(CowcloopError):
    """The caller asked to stop."""


class ClusterError(CowcloopError):
    """The workers of an executor, or a cluster, are gone or cannot do their work."""


_PLAIN: dict[str, type[CowcloopError]] = {
    "format": ImageFormatError,
    "mismatch": MismatchError,
    "dirty": DirtyError,
    "invalid-input": InvalidInputError,
    "cancelled": CancelledError,
}

_SYSTEM: dict[str, type[_SystemError]] = {
    "unsupported": UnsupportedError,
    "damaged": DamagedError,
    "busy": BusyError,
    "exists": ExistsError,
    "no-space": NoSpaceError,
    "read-only": ReadOnlyError,
    "poisoned": PoisonedError,
}

_BY_ERRNO: dict[int, type[StorageError]] = {
    _errno.ENOENT: NotFoundError,
    _errno.EACCES: AccessError,
    _errno.EPERM: AccessError,
}


def limit_reached(errno: int | None) -> str:
    """The addition to a message where a limit of this process has been reached."""
    if errno == _errno.EMFILE:
        return ": raise the limit (ulimit -n)"
    limit = _resource.getrlimit(_resource.RLIMIT_FSIZE)[0]
    if errno != _errno.EFBIG or limit == _resource.RLIM_INFINITY:
        return ""
    return f" (no file of this process may be over {limit} bytes: see ulimit -f)"


def from_engine(
    kind: str, errno: int, message: str, filename: str | None = None, remedy: str = ""
) -> CowcloopError:
    """The exception for an engine error of a kind; called by the Rust module."""
    message += limit_reached(errno)
    plain = _PLAIN.get(kind)
    error: CowcloopError
    if plain is not None:
        error = plain(message)
    else:
        system = _SYSTEM.get(kind) or _BY_ERRNO.get(errno, StorageError)
        error = system(errno, message, filename)
    error.remedy = remedy
    return error
