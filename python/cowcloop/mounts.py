"""The mounts, and the files of loop devices, from the kernel's own tables."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cowcloop.programs import find_program

TABLE = "/proc/self/mountinfo"

# Blanks, newlines and backslashes in a name are three octal digits.
_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of the table: `device` is its number, as in ``7:0``."""

    point: str
    device: str
    kind: str
    #: the source of the mount: a device's path, or another word
    source: str


def mounts() -> Iterator[Mount]:
    """All mounts that this process sees; of two at one place, the upper one comes last."""
    with open(TABLE, "rb") as file:
        for line in file:
            words = line.split()
            kind, source = words[words.index(b"-") + 1 :][:2]
            yield Mount(_name(words[4]), words[2].decode(), _name(kind), _name(source))


def at(point: str) -> Mount | None:
    """What is mounted at a place; the upper one of several."""
    found = None
    for mount in mounts():
        if mount.point == point:
            found = mount
    return found


def of_device(device: str) -> Mount | None:
    """The mount of a block device, or of a partition on it."""
    name = os.path.basename(os.path.realpath(device))
    for mount in mounts():
        # A partition's place in sysfs is below that of its disk.
        parts = Path(os.path.realpath(f"/sys/dev/block/{mount.device}")).parts
        if mount.source == device or name in parts[-2:]:
            return mount
    return None


def is_read_only(point: str) -> bool:
    """Whether the file system at a place cannot be written to."""
    return bool(os.statvfs(point).f_flag & os.ST_RDONLY)


def holding(path: str) -> str:
    """The mount point of the file system that a path, with no link in it, lies in."""
    points = {mount.point for mount in mounts()}
    return next(
        (str(each) for each in [Path(path), *Path(path).parents] if str(each) in points), "/"
    )


def on_device(device: str) -> list[str]:
    """Where a block device and its partitions are mounted; of two at one place, upper first."""
    name = os.path.basename(os.path.realpath(device))
    folder = Path("/sys/class/block", name)
    numbers = set()
    for path in (folder / "dev", *folder.glob(f"{name}p*/dev")):
        with contextlib.suppress(OSError):
            numbers.add(path.read_text(encoding="ascii").strip())
    return [mount.point for mount in mounts() if mount.device in numbers][::-1]


def inside(folder: Path) -> bool:
    """Whether something is mounted below a directory."""
    return any(folder in Path(mount.point).parents for mount in mounts())


def take_away(folder: Path) -> None:
    """Take away what is mounted below a directory: the file systems of servers that are dead."""
    for mount in mounts():
        if folder not in Path(mount.point).parents:
            continue
        if os.geteuid() == 0:
            command = [find_program("umount", "mount"), "-l"]
        else:
            command = [find_program("fusermount3", "fuse3"), "-u", "-z"]
        subprocess.run([*command, "--", mount.point], capture_output=True, check=False)


def loop_devices(folder: Path) -> list[str]:
    """The loop devices over the files below a directory, such as ``/dev/loop0``."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        # It may go away meanwhile.
        with contextlib.suppress(OSError):
            file = path.read_bytes().removesuffix(b"\n")
            if folder in Path(os.fsdecode(file)).parents:
                found.append(f"/dev/{path.parts[3]}")
    return found


def _name(word: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), word))
