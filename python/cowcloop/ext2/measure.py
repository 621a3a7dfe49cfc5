"""The space that a directory takes as a filesystem."""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass, field

from cowcloop.errors import AccessError
from cowcloop.ext2.errors import Ext2Error
from cowcloop.ext2.layout import (
    BLOCK,
    DIRECT,
    GROUP_BLOCKS,
    INODE,
    MOST_LINKS,
    NANO,
    POINTERS,
    held,
)

# Room to write into once it is mounted with a cowfile: a part of what is used, and a little.
_SPARE_PART = 16
_SPARE_BLOCKS = 256
_SPARE_INODES = 64
# In room that is asked for, as mke2fs has it.
_BLOCKS_OF_A_FILE = 4

# Bytes of attributes that an inode has room for, behind its 128 + 32 bytes of fields and a mark.
_IN_INODE = INODE - 160 - 4
# What each takes besides its name and value, which are rounded up to 4.
_ATTRIBUTE = 16

# Of a time in 32 bits, as mke2fs writes it in any version.
_PLAIN_TIMES = range(1 << 31)


@dataclass
class Needs:
    """Of a directory with all that is in it."""

    inodes: int = 0
    blocks: int = 0
    #: blocks that are to be free besides
    free: int = 0
    #: the newest time that has come yet
    newest: int = 1
    #: whether there are times that mke2fs does not copy
    odd_times: bool = False
    #: whether a directory has more directories in it than its count of links can tell
    crowded: bool = False
    #: bytes, and the file
    most_attributes: tuple[int, str] = (0, "")
    #: the properties that the filesystem cannot hold, in words
    lost: list[str] = field(default_factory=list)

    def size(self) -> int:
        """The filesystem's size in blocks."""
        used = self.blocks + self.blocks // _SPARE_PART + _SPARE_BLOCKS + self.free
        used += -(-self.inodes_with_spare() * INODE // BLOCK)
        groups = 1 + used // (GROUP_BLOCKS - 1024)
        # Each group: two bitmaps, the rounding of its inode table, and where there is a copy of
        # the superblock that and the descriptors.
        return used + groups * (4 + -(-groups * 32 // BLOCK))

    def inodes_with_spare(self) -> int:
        """Inodes to make."""
        spare = self.inodes // _SPARE_PART + _SPARE_INODES + self.free // _BLOCKS_OF_A_FILE
        return self.inodes + spare


def needs_of(root: str) -> Needs:
    """Measure all of a directory; AccessError where that is not allowed."""
    measuring = _Measuring()
    measuring.count(root, os.stat(root))
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            folders += measuring.folder(folder)
        except AccessError:
            raise
        except PermissionError:
            raise _unreadable(folder) from None
    return measuring.needs


class _Measuring:
    def __init__(self) -> None:
        self.needs = Needs()
        self._now = int(time.time())
        # Of files with several names: those met so far.
        self._links: dict[tuple[int, int], int] = {}

    def folder(self, path: str) -> list[str]:
        """Count what is in a directory; the directories in it."""
        found = []
        names = 0
        with os.scandir(path) as entries:
            for entry in entries:
                # A name takes its length, 8 bytes more, rounded up to 4.
                names += len(os.fsencode(entry.name)) + 11
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    found.append(entry.path)
                elif status.st_nlink > 1 and not self._is_first(entry.path, status):
                    continue
                self.count(entry.path, status)
        # A name never crosses a block's end, so some of each block is lost.
        self.needs.blocks += 1 + names // (BLOCK - 264)
        self.needs.crowded |= len(found) > MOST_LINKS - 2
        return found

    def count(self, path: str, status: os.stat_result) -> None:
        """Count a file or directory."""
        needs = self.needs
        needs.inodes += 1
        self._count_time(path, status.st_mtime_ns // NANO)
        data = 0 if stat.S_ISDIR(status.st_mode) else -(-status.st_size // BLOCK)
        needs.blocks += data
        if data > DIRECT:
            needs.blocks += 3 + data // POINTERS + data // POINTERS**2
        if stat.S_ISREG(status.st_mode) and not os.access(path, os.R_OK, effective_ids=True):
            raise _unreadable(path)
        attributes = _attributes(path)
        if attributes > _IN_INODE:
            needs.blocks += 1
        needs.most_attributes = max(needs.most_attributes, (attributes, path))

    def _count_time(self, path: str, seconds: int) -> None:
        if seconds <= self._now:
            self.needs.newest = max(self.needs.newest, seconds)
        if seconds not in _PLAIN_TIMES or seconds > self._now:
            self.needs.odd_times = True
        if held(seconds) != seconds and not self.needs.lost:
            message = "its time is outside what ext2 holds (1901 to 2446): the nearest is used"
            self.needs.lost.append(f"{path}: {message}, as for other such files")

    def _is_first(self, path: str, status: os.stat_result) -> bool:
        """Whether it is the first name of a file that is met."""
        key = (status.st_dev, status.st_ino)
        self._links[key] = self._links.get(key, 0) + 1
        if self._links[key] > MOST_LINKS:
            raise Ext2Error(f"{path}: a file has at most {MOST_LINKS} names in ext2: remove some")
        return self._links[key] == 1


def _unreadable(path: str) -> AccessError:
    message = "may not be read by this user: run it as root, or take that out of the directory"
    return AccessError(errno.EACCES, f"{path}: {message}", path)


def _attributes(path: str) -> int:
    """Bytes that a file's extended attributes take."""
    size = 0
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            value = len(os.getxattr(path, name, follow_symlinks=False))
            size += _ATTRIBUTE + -(-len(os.fsencode(name)) // 4) * 4 + -(-value // 4) * 4
    except OSError:
        # A file system without; or mke2fs will say what is wrong.
        pass
    return size
