"""The error of a server's life, which may be an error of Python's own as well."""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Iterable

from cowcloop import errors
from cowcloop.errors import CowcloopError

__all__ = ["ServerError"]


class ServerError(CowcloopError):
    """A device could not be served, or its server failed; the message is one line.

    That of :func:`cowcloop.serve` is also what :func:`cowcloop.open` raises for the same reason:
    a ``NotFoundError``, so a ``FileNotFoundError``, where a file is missing.
    """


def _also(kind: type[CowcloopError]) -> type[ServerError]:
    """A ServerError that is an error of this kind, too; a name of this module, for pickle."""
    name = f"Server{kind.__name__}"
    made = type(name, (ServerError, kind), {"__doc__": kind.__doc__, "__module__": __name__})
    globals()[name] = made
    return made


_KINDS: dict[type[CowcloopError], type[ServerError]] = {
    kind: _also(kind)
    for kind in (
        errors.StorageError,
        errors.NotFoundError,
        errors.AccessError,
        errors.ImageFormatError,
        errors.UnsupportedError,
        errors.DamagedError,
        errors.MismatchError,
        errors.BusyError,
        errors.DirtyError,
        errors.NoSpaceError,
        errors.ReadOnlyError,
        errors.InvalidInputError,
    )
}

# The system's words at the end of a line, and its error number.
_REASONS = {os.strerror(number): number for number in _errno.errorcode}


def of_kind(error: CowcloopError) -> CowcloopError:
    """A ServerError of the same kind as `error`, with its message."""
    kind = _KINDS.get(type(error))
    if kind is None:
        return error
    if isinstance(error, OSError):
        return kind(error.errno, str(error), error.filename)
    return kind(str(error))


def of_reason(message: str, files: Iterable[str]) -> CowcloopError:
    """A ServerError with this message: the system's words at its end tell its kind.

    It is about that of the files with which it begins.
    """
    # What to do about it follows the system's words.
    problem = message.rpartition("; ")[0] or message
    number = _REASONS.get(message.rpartition(": ")[2]) or _REASONS.get(problem.rpartition(": ")[2])
    if number is None:
        return ServerError(message)
    name = next((file for file in files if message.startswith(f"{file}: ")), None)
    return of_kind(errors.from_engine("io", number, message, name))
