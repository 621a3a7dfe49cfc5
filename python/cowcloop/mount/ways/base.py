"""The interface of all ways."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cowcloop import registry
from cowcloop.modules import load
from cowcloop.mount.errors import MountError
from cowcloop.mount.probe import Volume
from cowcloop.server.interrupts import Interrupts
from cowcloop.server.options import ServeOptions
from cowcloop.server.process import Report

#: Serves a device in the background; returns when it is ready.
Attach = Callable[[ServeOptions], registry.Entry]

#: What mounts by the kernel's own file systems needs, with the packages.
KERNEL_PROGRAMS = (("mount", "mount"), ("umount", "mount"), ("losetup", "mount"))

_FUSE = Path("/dev/fuse")
_MTAB = Path("/etc/mtab")


@dataclass(frozen=True)
class Mounting:
    """A device that is served, and how its file system is to be mounted.

    `source` is the path of the device, `image` what the user calls it, `words` the options for
    mount(8), and `given` those of them that are the user's.
    """

    record: registry.Record
    folder: Path
    source: str
    volume: Volume
    image: str
    words: tuple[str, ...]
    given: tuple[str, ...]
    interrupts: Interrupts
    report: Report

    @property
    def place(self) -> str:
        """The directory."""
        assert self.record.mount is not None
        return self.record.mount


class Way(ABC):
    """One way; it holds no state."""

    #: as --via has it
    name: ClassVar[str]
    #: the programs that it needs, each with its package
    programs: ClassVar[tuple[tuple[str, str], ...]]

    @abstractmethod
    def refusal(self) -> str | None:
        """Why this machine, or this user, does not have this way; None: it may be tried."""

    @abstractmethod
    def check(self, *, writes: bool) -> None:
        """Refuse, before the start, what would not work, or not be safe."""

    @abstractmethod
    def attach(self, options: ServeOptions, attach: Attach) -> registry.Entry:
        """Serve the device as this way needs it."""

    @abstractmethod
    def source(self, record: registry.Record) -> str:
        """The path of the served device."""

    @abstractmethod
    def mount(self, mounting: Mounting) -> None:
        """Mount the device's file system."""


def needs_root(name: str) -> str | None:
    """The refusal of a way that is root's alone."""
    if os.geteuid() == 0:
        return None
    return f"--via {name} needs root; without root there is --via fuse2fs"


def check_fuse() -> None:
    """Refuse a machine whose FUSE this user cannot use."""
    if not _FUSE.exists() and not load("fuse", _FUSE):
        raise MountError(f"{_FUSE} does not exist: load the kernel's module with: modprobe fuse")
    if not os.access(_FUSE, os.R_OK | os.W_OK):
        raise MountError(f"{_FUSE}: you may not use it: have root do: chmod a+rw {_FUSE}")
    if os.geteuid() != 0 and not _MTAB.exists():
        raise MountError(
            f"{_MTAB} does not exist, and fusermount3 unmounts nothing without it: have root do: "
            f"ln -s /proc/self/mounts {_MTAB}"
        )
