"""How the kernel gets at a device: its own NBD, or FUSE."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cowcloop.mounting.errors import MountError
from cowcloop.programs import MissingProgram, find_program

# nbd: /dev/nbdN and the kernel's file system. fuse: nbdfuse, a loop device and the kernel's file
# system. fuse2fs: nbdfuse and fuse2fs, without root.
WAYS = ("nbd", "fuse", "fuse2fs")

_LOOP = Path("/dev/loop-control")


def choose(via: str | None) -> str:
    """The way that was asked for, or the first that this machine and this user have."""
    root = os.geteuid() == 0
    if via is None:
        if not root:
            return "fuse2fs"
        if _has_nbd():
            return "nbd"
        return "fuse" if _LOOP.exists() else "fuse2fs"
    if via != "fuse2fs" and not root:
        raise MountError(f"--via {via} needs root; without root there is --via fuse2fs")
    if via == "fuse" and not _LOOP.exists():
        raise MountError(f"{_LOOP} does not exist: load the kernel's module with: modprobe loop")
    return via


def check_programs(way: str) -> None:
    """MissingProgram, before anything is started, when a program that a way needs is missing."""
    for name, package in {
        "nbd": (("nbd-client", "nbd-client"), ("mount", "mount")),
        "fuse": (("nbdfuse", "libnbd-bin"), ("mount", "mount")),
        "fuse2fs": (("nbdfuse", "libnbd-bin"), ("fuse2fs", "fuse2fs"), ("fusermount3", "fuse3")),
    }[way]:
        find_program(name, package)


def free_nbd(tried: frozenset[str] = frozenset()) -> str:
    """A kernel NBD device that nobody has connected."""
    known = _nbd_devices()
    for device in known:
        # The kernel shows the client's process number while a device is connected.
        if device not in tried and not Path(f"/sys/block/{Path(device).name}/pid").exists():
            return device
    if known:
        raise MountError(f"all {len(known)} kernel NBD devices are in use: detach one of them")
    raise MountError(
        "this kernel has no NBD devices: load its module with: modprobe nbd; or use --via fuse"
    )


def _has_nbd() -> bool:
    try:
        find_program("nbd-client", "nbd-client")
        free_nbd()
    except (MissingProgram, MountError):
        return False
    return True


def _nbd_devices() -> list[str]:
    names = [path.name for path in Path("/sys/block").glob("nbd*")]
    found = [name for name in names if re.fullmatch(r"nbd\d+", name)]
    return [f"/dev/{name}" for name in sorted(found, key=lambda name: int(name[3:]))]
