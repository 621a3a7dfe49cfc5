"""The kernel's ways to a device: its own NBD, or FUSE."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cowcloop.mount import fuse2fs
from cowcloop.mount.errors import MountError
from cowcloop.programs import MissingProgram, check_programs, find_program

# nbd: /dev/nbdN and the kernel's file system. fuse: nbdfuse, a loop device and the kernel's file
# system. fuse2fs: nbdfuse and fuse2fs, without root.
WAYS = ("nbd", "fuse", "fuse2fs")

_MOUNT = (("mount", "mount"), ("umount", "mount"), ("losetup", "mount"))
_NBDFUSE = ("nbdfuse", "libnbd-bin")
# What each needs, with the packages.
_PROGRAMS = {
    "nbd": (("nbd-client", "nbd-client"), *_MOUNT),
    "fuse": (_NBDFUSE, *_MOUNT),
    "fuse2fs": (_NBDFUSE, ("fuse2fs", "fuse2fs"), ("fusermount3", "fuse3")),
}

_BLOCK_DEVICES = Path("/sys/block")
_LOOP = Path("/dev/loop-control")
_FUSE = Path("/dev/fuse")
_MTAB = Path("/etc/mtab")


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


def check(way: str, *, writes: bool) -> None:
    """Refuse, before the start, a way that lacks a program, may not use FUSE, or is unsafe."""
    programs = [("nbdkit", "nbdkit"), ("blkid", "util-linux"), *_PROGRAMS[way]]
    check_programs(*programs)
    if way == "nbd":
        return
    if not _FUSE.exists():
        raise MountError(f"{_FUSE} does not exist: load the kernel's module with: modprobe fuse")
    if not os.access(_FUSE, os.R_OK | os.W_OK):
        raise MountError(f"{_FUSE}: you may not use it: have root do: chmod a+rw {_FUSE}")
    if os.geteuid() != 0 and not _MTAB.exists():
        raise MountError(
            f"{_MTAB} does not exist, and fusermount3 unmounts nothing without it: have root do: "
            f"ln -s /proc/self/mounts {_MTAB}"
        )
    if way == "fuse2fs" and writes:
        fuse2fs.check_writable()


def free_nbd(tried: frozenset[str] = frozenset()) -> str:
    """A kernel NBD device that is not connected."""
    known = _nbd_devices()
    for device in known:
        if device not in tried and not connected(device):
            return device
    if known:
        raise MountError(f"all {len(known)} kernel NBD devices are in use: detach one of them")
    raise MountError(
        "this kernel has no NBD devices: load its module with: modprobe nbd; or use --via fuse"
    )


def connected(device: str) -> bool:
    """Whether a kernel NBD device has a client: the kernel shows its process number."""
    return (_BLOCK_DEVICES / Path(device).name / "pid").exists()


def _has_nbd() -> bool:
    try:
        find_program("nbd-client", "nbd-client")
        free_nbd()
    except (MissingProgram, MountError):
        return False
    return True


def _nbd_devices() -> list[str]:
    names = [path.name for path in _BLOCK_DEVICES.glob("nbd*")]
    found = [name for name in names if re.fullmatch(r"nbd\d+", name)]
    return [f"/dev/{name}" for name in sorted(found, key=lambda name: int(name[3:]))]
