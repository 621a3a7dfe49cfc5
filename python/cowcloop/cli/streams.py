"""The three standard streams, each of which may have been closed (`>&-`) at the start."""

from __future__ import annotations

import codecs
import io
import os
import sys


def open_missing() -> None:
    """Open those that are closed, so that no other file gets their numbers.

    Otherwise input could come from that file, and messages go to it.
    """
    # The wrong way round, so that using one is still an error.
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one. The programs that we run have it, too.
            os.set_inheritable(os.open(os.devnull, flags), True)
    # Python makes no stream for a number that was closed when it started.
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace", closefd=False)


def take_any_name() -> None:
    """Have a file name written to standard output as it is, whatever its bytes.

    What the output's encoding lacks is shown with backslashes, as on standard error.
    """
    codecs.register_error("cowcloop", _written_otherwise)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="cowcloop")


def _written_otherwise(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    return ascii(letter)[1:-1], error.start + 1


def drop_unwritten() -> None:
    """Drop output that cannot be written: Python would try again at its end, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def check_input() -> None:
    """OSError when nothing can be read from standard input."""
    if _mode(0) == os.O_WRONLY:
        raise closed("standard input")


def check_output() -> None:
    """OSError when nothing can be written to standard output."""
    if _mode(1) == os.O_RDONLY:
        raise closed("standard output")


def closed(name: str) -> OSError:
    """The error of using a closed stream."""
    import errno

    return OSError(errno.EBADF, "it is closed", name)


def _mode(number: int) -> int:
    import fcntl

    return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
