"""Whether a worker sees the same file as the program that it works for."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

_BOOT = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Sight:
    """A file or block device, and what it is known by wherever it is seen."""

    path: str
    #: None where there is nothing at the path
    mark: tuple[object, ...] | None


def sight_of(path: str) -> Sight | None:
    """The file or block device at a path; None for what cannot be read twice."""
    whole = os.path.abspath(path)
    mark = _mark(whole)
    return None if mark is None else Sight(whole, mark)


def missing(path: str) -> Sight:
    """Nothing at a path, where something might be."""
    return Sight(os.path.abspath(path), None)


def seen(sight: Sight) -> bool:
    """Whether the same file is at this path here."""
    return _mark(sight.path) == sight.mark


def _mark(path: str) -> tuple[object, ...] | None:
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            # A network file system shows all of these on each machine. A copy, whose bytes may
            # differ, has an inode and a time of change of its own.
            return ("file", found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if stat.S_ISBLK(found.st_mode):
            # The numbers mean this device until the machine is started again.
            with open(_BOOT, encoding="ascii") as boot:
                return ("device", boot.read(), found.st_rdev)
    except OSError:
        pass
    return None
