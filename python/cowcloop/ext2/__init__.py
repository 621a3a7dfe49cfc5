"""An ext2 filesystem made of a directory, by mke2fs: sized to fit, and always the same bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from cowcloop.errors import InvalidInputError, StorageError, limit_reached
from cowcloop.ext2 import inodes, measure
from cowcloop.ext2.errors import Ext2Error
from cowcloop.ext2.layout import BLOCK
from cowcloop.ext2.programs import Programs
from cowcloop.programs import find_program

__all__ = ["Ext2Error", "filesystem_of"]

_ATTEMPTS = 5


@contextlib.contextmanager
def filesystem_of(
    directory: str | os.PathLike[str],
    beside: str | None = None,
    *,
    free: int = 0,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[str]:
    """A path under which the filesystem of a directory can be read, with `free` bytes of room.

    It lies in a file without a name in the directory `beside` (default: the system's place for
    temporary files), so that nothing is left behind however this ends. `warn` is told what of
    the directory the filesystem cannot hold.
    """
    programs = Programs(
        find_program("mke2fs", "e2fsprogs"),
        find_program("e2fsck", "e2fsprogs"),
        os.path.join(os.getcwd(), directory),
    )
    place = beside or tempfile.gettempdir()
    elsewhere = "set TMPDIR to" if beside is None else "name an OUT in"
    source = os.path.realpath(directory)
    if os.path.commonpath((source, os.path.realpath(place))) == source:
        raise InvalidInputError(
            f"{place}: is in {os.fspath(directory)}, which is to be read: "
            f"{elsewhere} a directory outside of it"
        )
    needs = measure.needs_of(os.fspath(directory))
    needs.free = -(-free // BLOCK)
    for message in needs.lost:
        warn(message)
    try:
        file = _made(programs, os.fspath(directory), place, needs)
    except OSError as error:
        number = error.errno or errno.EIO
        remedy = limit_reached(number) or f": {elsewhere} another directory"
        raise StorageError(
            number,
            f"{place}: cannot keep a filesystem of {os.fspath(directory)} here: "
            f"{os.strerror(number)}{remedy}",
        ) from None
    with file:
        yield f"/proc/self/fd/{file.fileno()}"


def _made(programs: Programs, directory: str, place: str, needs: measure.Needs) -> BinaryIO:
    """The filesystem in a file without a name; OSError where that cannot be written."""
    with contextlib.ExitStack() as failed:
        file = failed.enter_context(tempfile.TemporaryFile(dir=place, prefix=".cowcloop-"))
        blocks = needs.size()
        for attempt in range(1, _ATTEMPTS + 1):
            file.truncate(0)
            file.truncate(blocks * BLOCK)
            reason = programs.make(file, needs, blocks)
            if reason is None:
                break
            if os.strerror(errno.ENOSPC) in reason:
                raise OSError(errno.ENOSPC, reason)
            # What the estimate does not know: a larger one has the room.
            if attempt == _ATTEMPTS or not _is_full(reason):
                raise Ext2Error(f"{directory}: mke2fs: {reason}{_attributes(reason, needs)}")
            blocks += blocks // 2
        if needs.crowded:
            programs.mend(file, needs)
        inodes.settle(file, directory, odd_times=needs.odd_times)
        failed.pop_all()
        return file


def _is_full(reason: str) -> bool:
    return "allocate" in reason or "no free" in reason.lower()


def _attributes(reason: str, needs: measure.Needs) -> str:
    """mke2fs does not say which file has more attributes than there is room for."""
    if "extended attribute" not in reason:
        return ""
    size, path = needs.most_attributes
    return f": {path} has the most, {size} bytes: a file can have some {BLOCK} of them in ext2"
