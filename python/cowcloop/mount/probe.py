"""The content of a device: a file system or partitions, as blkid and partx find them."""

from __future__ import annotations

import shlex
import struct
from dataclasses import dataclass

from cowcloop.mount.errors import MountError
from cowcloop.mount.programs import run
from cowcloop.programs import find_program
from cowcloop.sizes import format_size

_SECTOR = 512
_LARGE_SECTOR = 4096
# The beginning of a GUID partition table.
_GPT = b"EFI PART"

# Of the ext2 superblock: its place, the place of s_feature_compat in it, and the bit has_journal.
_SUPERBLOCK = 1024
_FEATURES = 92
_HAS_JOURNAL = 4

_EXT = ("ext2", "ext3", "ext4")
# Those that always keep one.
_JOURNALING = ("xfs", "jfs", "reiserfs")


@dataclass(frozen=True)
class Partition:
    """One partition; `start` and `size` in bytes."""

    number: int
    start: int
    size: int


@dataclass(frozen=True)
class Volume:
    """A file system of a known type; `start` and `size` in bytes when it is in a partition."""

    kind: str
    start: int = 0
    size: int | None = None
    journal: bool = False

    @property
    def is_ext(self) -> bool:
        """Whether it is of the ext2 family."""
        return self.kind in _EXT


def find_volume(path: str, name: str, partition: int | None) -> Volume:
    """The file system to mount; MountError says what is there instead. `name`: the image's."""
    start, size = 0, None
    if partition is not None:
        known = _partitions(path)
        chosen = next((each for each in known if each.number == partition), None)
        if chosen is None:
            there = f"it has {_list(path, known)}" if known else "it holds no partition table"
            raise MountError(f"{name}: there is no partition {partition}: {there}")
        start, size = chosen.start, chosen.size
    found = _blkid(path, start, size)
    kind, usage = found.get("TYPE"), found.get("USAGE")
    what = name if partition is None else f"{name}: partition {partition}"
    if kind is None and partition is None and "PTTYPE" in found:
        known = _partitions(path)
        raise MountError(
            f"{name} is partitioned: choose one with --partition: {_list(path, known)}"
        )
    if kind is None:
        raise MountError(f"{what} holds no file system that blkid knows: nothing can be mounted")
    if usage != "filesystem":
        raise MountError(
            f"{what} holds {kind}, which is no file system: attach it with --device and use "
            "the tools for that"
        )
    return Volume(kind, start, size, kind in _JOURNALING or _has_journal(path, start, kind))


def _partitions(path: str) -> list[Partition]:
    sector = ["--sector-size", str(_LARGE_SECTOR)] if _has_large_sectors(path) else []
    command = [find_program("partx", "util-linux"), *sector, "-P", "-o", "NR,START,SECTORS"]
    done = run(*command, "--", path)
    found = []
    for line in done.output.splitlines():
        words = dict(word.split("=", 1) for word in shlex.split(line))
        # These are of 512 bytes, whatever the device's are.
        number, start, sectors = (int(words[key]) for key in ("NR", "START", "SECTORS"))
        found.append(Partition(number, start * _SECTOR, sectors * _SECTOR))
    return found


def _has_large_sectors(path: str) -> bool:
    """Whether the GPT is one of a disk with sectors of 4096 bytes: it lies in the second one."""
    with open(path, "rb") as file:
        begin = file.read(_LARGE_SECTOR + len(_GPT))
    return begin.endswith(_GPT) and not begin.startswith(_GPT, _SECTOR)


def _list(path: str, known: list[Partition]) -> str:
    """For the user: numbers, with the content of each."""
    words = []
    for each in known:
        kind = _blkid(path, each.start, each.size).get("TYPE", "unknown")
        words.append(f"{each.number} ({kind}, {format_size(each.size)})")
    return ", ".join(words) or "none that can be used"


def _blkid(path: str, start: int, size: int | None) -> dict[str, str]:
    area = [] if size is None else ["-O", str(start), "-S", str(size)]
    done = run(find_program("blkid", "util-linux"), "-p", "-o", "export", *area, "--", path)
    if "mbivalent" in done.errors:
        raise MountError(f"{path}: blkid finds several file systems at once: wipefs shows them")
    pairs = (line.partition("=") for line in done.output.splitlines())
    return {key: value for key, _, value in pairs}


def _has_journal(path: str, start: int, kind: str) -> bool:
    if kind not in _EXT:
        return False
    with open(path, "rb") as file:
        file.seek(start + _SUPERBLOCK + _FEATURES)
        features = file.read(4)
    return len(features) == 4 and bool(struct.unpack("<I", features)[0] & _HAS_JOURNAL)
