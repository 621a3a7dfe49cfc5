"""Times and modes that mke2fs does not write as the directory has them.

Offsets are those of the ext2 superblock, group descriptor, inode and directory entry.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from cowcloop.ext2.layout import BLOCK, DIRECT, GROUP_BLOCKS, INODE, NANO, POINTERS, held

_ROOT = 2
_SUPERBLOCK = 1024
_DESCRIPTOR = 32
# Of the time's upper bits and its nanoseconds, in one field: how many bits are of the first.
_EPOCH_BITS = 2
_LEVELS = 3


def settle(file: BinaryIO, directory: str, *, odd_times: bool) -> None:
    """Give every inode its time of modification in place of the others, and the root its own.

    The times of reading and of changing an inode are no property of a file's content, and copying
    changes them. With `odd_times` the times are taken from the directory once more: mke2fs
    up to 1.47.0 cuts off what is beyond 32 bits, and from 1.47.1 on what is in the future.
    """
    volume = _Volume(file)
    times = dict(_times(volume, directory)) if odd_times else {}
    root = os.stat(directory)
    times[_ROOT] = root.st_mtime_ns // NANO
    for first, table_at, count in volume.tables():
        file.seek(table_at)
        table = bytearray(file.read(count * INODE))
        for number in range(count):
            at = number * INODE
            if table[at : at + 2] != b"\0\0":
                _settle_times(table, at, times.get(first + number))
            if first + number == _ROOT:
                mode = stat.S_IFDIR | stat.S_IMODE(root.st_mode)
                struct.pack_into("<H", table, at, mode)
        file.seek(table_at)
        file.write(table)
    file.flush()


def _settle_times(table: bytearray, at: int, seconds: int | None) -> None:
    if seconds is not None:
        whole = held(seconds)
        struct.pack_into("<I", table, at + 16, whole & 0xFFFFFFFF)
        # How far it is from what the lower bits mean, which have a sign.
        low = (whole + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
        struct.pack_into("<I", table, at + 136, (whole - low) >> 32 & (1 << _EPOCH_BITS) - 1)
    modified = table[at + 16 : at + 20]
    modified_extra = table[at + 136 : at + 140]
    # Times of access and of change, with the bits beyond 32, and of creation; the generation.
    table[at + 8 : at + 16] = modified * 2
    table[at + 132 : at + 136] = modified_extra
    table[at + 140 : at + 152] = modified_extra + modified + modified_extra
    table[at + 100 : at + 104] = bytes(4)


def _times(volume: _Volume, directory: str) -> Iterator[tuple[int, int]]:
    """The number of each inode, and the time of the file that was copied to it."""
    waiting = [(directory, _ROOT)]
    while waiting:
        folder, number = waiting.pop()
        copied = dict(volume.entries(number))
        with os.scandir(folder) as entries:
            for entry in entries:
                inode = copied.get(os.fsencode(entry.name))
                # Sockets are not copied, nor what has been made since.
                if inode is None:
                    continue
                yield inode, entry.stat(follow_symlinks=False).st_mtime_ns // NANO
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, inode))


class _Volume:
    """A filesystem as mke2fs has just made it: block maps, no extents, no indexed directories."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        superblock = self._read(_SUPERBLOCK, 1024)
        self._inodes, blocks = struct.unpack_from("<II", superblock, 0)
        self._per_group = struct.unpack_from("<I", superblock, 40)[0]
        groups = -(-blocks // GROUP_BLOCKS)
        descriptors = self._read(BLOCK, groups * _DESCRIPTOR)
        self._tables = [
            struct.unpack_from("<I", descriptors, group * _DESCRIPTOR + 8)[0] * BLOCK
            for group in range(groups)
        ]

    def tables(self) -> Iterator[tuple[int, int, int]]:
        """Of each group the number of its first inode, where its inodes lie, and how many."""
        for group, table_at in enumerate(self._tables):
            first = group * self._per_group + 1
            yield first, table_at, min(self._per_group, self._inodes - first + 1)

    def entries(self, directory: int) -> Iterator[tuple[bytes, int]]:
        """Names and inodes in a directory."""
        group, index = divmod(directory - 1, self._per_group)
        inode = self._read(self._tables[group] + index * INODE, INODE)
        pointers = struct.unpack_from(f"<{DIRECT + _LEVELS}I", inode, 40)
        yield from self._in_blocks(pointers[:DIRECT])
        for level in range(_LEVELS):
            yield from self._in_blocks(self._below(pointers[DIRECT + level], level))

    def _below(self, pointer: int, levels: int) -> Iterator[int]:
        """The blocks that an indirect block leads to, through so many levels more."""
        if not pointer:
            return
        for each in struct.unpack(f"<{POINTERS}I", self._read(pointer * BLOCK, BLOCK)):
            if levels:
                yield from self._below(each, levels - 1)
            else:
                yield each

    def _in_blocks(self, blocks: Iterable[int]) -> Iterator[tuple[bytes, int]]:
        for block in filter(None, blocks):
            data = self._read(block * BLOCK, BLOCK)
            at = 0
            while at < BLOCK:
                inode, length, name = struct.unpack_from("<IHB", data, at)
                if inode:
                    yield data[at + 8 : at + 8 + name], inode
                at += length

    def _read(self, at: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, at)
