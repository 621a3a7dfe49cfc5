"""File systems to mount, and the programs behind a mount."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from pathlib import Path

import pytest
from cowcloop.mount import MountError
from cowcloop.mount.ways.fuse2fs import check_writable

from support.programs import program, run
from support.server import wait_until

#: How a machine without ublk and the kernel's NBD mounts.
WAYS = ["fuse", "fuse2fs"]
#: What umount says.
DONE = "unmounted; everything is on disk"


def require_fuse2fs_that_writes() -> None:
    """Skips where the distribution's fuse2fs damages files: cowcloop does not write with it."""
    program("fuse2fs", "fuse2fs")
    try:
        check_writable()
    except MountError as error:
        pytest.skip(str(error))


def bytes_of(path: Path) -> bytes:
    """A file's content; none where it has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def processes(name: str, *folders: Path) -> list[int]:
    """The running programs of a name that have to do with one of the folders."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = bytes_of(path).split(b"\0")
        if Path(os.fsdecode(words[0])).name == name and any(
            os.fsencode(folder) in word for folder in folders for word in words
        ):
            found.append(int(path.parent.name))
    return found


def kill(name: str, *folders: Path) -> None:
    """As a crash would: SIGKILL, and it is gone, and so is what would start it again."""

    def gone() -> bool:
        for pid in sorted(processes(name, *folders)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return processes(name, *folders) == []

    assert processes(name, *folders) != []
    wait_until(gone, f"the end of {name}")


def mkfs(path: Path, kind: str, *options: str, kib: int = 8192, offset: int = 0) -> Path:
    """A file system of the ext family in a file."""
    if not path.exists():
        path.touch()
        os.truncate(path, kib * 1024)
    where = [] if not offset else ["-E", f"offset={offset}"]
    mke2fs = program("mke2fs", "e2fsprogs")
    run(mke2fs, "-q", "-F", "-t", kind, *where, *options, path, f"{kib}k")
    return path


def sha(path: Path) -> str:
    """A file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def mounted_options(place: Path) -> str:
    """What the kernel says about a mount."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        words = line.split()
        if words[4] == str(place):
            return f"{words[5]} {words[8] if words[7] == '-' else words[7]}"
    return ""
