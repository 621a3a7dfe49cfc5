"""An ext2 filesystem made of a directory, by mke2fs: sized to fit, and always the same bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cowcloop.errors import CowcloopError, InvalidInputError, StorageError, limit_reached
from cowcloop.programs import find_program

_BLOCK = 4096
_INODE = 256
_GROUP_BLOCKS = 8 * _BLOCK
# Pointers in an indirect block.
_POINTERS = _BLOCK // 4
# Room to write into once it is mounted with a cowfile: a part of what is used, and a little.
_SPARE_PART = 16
_SPARE_BLOCKS = 256
_SPARE_INODES = 64
_ATTEMPTS = 5

_UUID = "636f7763-6c6f-4f70-8000-657874320000"
_FEATURES = "none,ext_attr,filetype,sparse_super,large_file"


class Ext2Error(CowcloopError):
    """The filesystem of a directory could not be made."""


@dataclass
class _Needs:
    inodes: int = 0
    blocks: int = 0
    newest: int = 0


@contextlib.contextmanager
def filesystem_of(directory: str | os.PathLike[str], beside: str | None = None) -> Iterator[str]:
    """A path under which the filesystem of a directory can be read.

    It lies in a file without a name in the directory `beside` (default: the system's place for
    temporary files), so that nothing is left behind however this ends.
    """
    mke2fs = find_program("mke2fs", "e2fsprogs")
    place = beside or tempfile.gettempdir()
    elsewhere = "set TMPDIR to" if beside is None else "name an OUT in"
    source = os.path.realpath(directory)
    if os.path.commonpath((source, os.path.realpath(place))) == source:
        raise InvalidInputError(
            f"{place}: is in {os.fspath(directory)}, which is to be read: "
            f"{elsewhere} a directory outside of it"
        )
    needs = _measure(Path(directory))
    try:
        file = _made(mke2fs, os.fspath(directory), place, needs)
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


def _made(mke2fs: str, directory: str, place: str, needs: _Needs) -> BinaryIO:
    """The filesystem in a file without a name; OSError where that cannot be written."""
    with contextlib.ExitStack() as failed:
        file = failed.enter_context(tempfile.TemporaryFile(dir=place, prefix=".cowcloop-"))
        blocks = _size(needs)
        for attempt in range(1, _ATTEMPTS + 1):
            reason = _make(mke2fs, directory, file, needs, blocks)
            if reason is None:
                break
            if os.strerror(errno.ENOSPC) in reason:
                raise OSError(errno.ENOSPC, reason)
            # What the estimate cannot know, such as attributes: a larger one has the room.
            if attempt == _ATTEMPTS or not _is_full(reason):
                raise Ext2Error(f"{directory}: mke2fs: {reason}")
            blocks += blocks // 8
        _settle_times(file)
        failed.pop_all()
        return file


def _measure(root: Path) -> _Needs:
    """Inodes and blocks that the tree takes, and its newest time."""
    needs = _Needs()
    seen: set[tuple[int, int]] = set()
    folders = [root]
    _count(needs, root.stat())
    while folders:
        folder = folders.pop()
        names = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                # A name takes its length, 8 bytes more, rounded up to 4.
                names += len(os.fsencode(entry.name)) + 11
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                _count(needs, status)
        # A name never crosses a block's end, so some of each block is lost.
        needs.blocks += 1 + names // (_BLOCK - 264)
    return needs


def _count(needs: _Needs, status: os.stat_result) -> None:
    needs.inodes += 1
    needs.newest = max(needs.newest, int(status.st_mtime))
    data = -(-status.st_size // _BLOCK)
    needs.blocks += data
    if data > 12:
        needs.blocks += 3 + data // _POINTERS + data // _POINTERS**2


def _size(needs: _Needs) -> int:
    """The filesystem's size in blocks."""
    used = needs.blocks + needs.blocks // _SPARE_PART + _SPARE_BLOCKS
    used += -(-_inodes(needs) * _INODE // _BLOCK)
    groups = 1 + used // (_GROUP_BLOCKS - 1024)
    # Each group: two bitmaps, the rounding of its inode table, and where there is a copy of the
    # superblock that and the descriptors.
    return used + groups * (4 + -(-groups * 32 // _BLOCK))


def _inodes(needs: _Needs) -> int:
    return needs.inodes + needs.inodes // _SPARE_PART + _SPARE_INODES


def _make(mke2fs: str, directory: str, file: BinaryIO, needs: _Needs, blocks: int) -> str | None:
    """Run mke2fs; None, or why it failed."""
    file.truncate(0)
    file.truncate(blocks * _BLOCK)
    now = os.environ.get("SOURCE_DATE_EPOCH") or str(max(needs.newest, 1))
    owner = os.stat(directory)
    extended = ",".join(
        (
            f"hash_seed={_UUID}",
            f"root_owner={owner.st_uid}:{owner.st_gid}",
            "nodiscard",
            "lazy_itable_init=0",
        )
    )
    command = [mke2fs, "-q", "-F", "-t", "ext2", "-b", str(_BLOCK), "-I", str(_INODE)]
    command += ["-m", "0", "-N", str(_inodes(needs)), "-O", _FEATURES, "-U", _UUID]
    command += ["-E", extended, "-d", os.path.join(os.getcwd(), directory)]
    command += [f"/proc/self/fd/{file.fileno()}", str(blocks)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[file.fileno()],
        # No settings of this machine, and no clock.
        env={
            **os.environ,
            "LC_ALL": "C",
            "MKE2FS_CONFIG": "/dev/null",
            "SOURCE_DATE_EPOCH": now,
            "E2FSPROGS_FAKE_TIME": now,
        },
    )
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("mke2fs: ") if lines else f"exit status {done.returncode}"


def _is_full(reason: str) -> bool:
    return "allocate" in reason or "no free" in reason.lower()


def _settle_times(file: BinaryIO) -> None:
    """Give every inode its time of modification in place of the others.

    When a file was read or its inode changed is no property of its content, and changes by the
    copying itself. Offsets are those of the ext2 superblock, group descriptor and inode.
    """
    file.seek(1024)
    superblock = file.read(1024)
    inodes, blocks = struct.unpack_from("<II", superblock, 0)
    per_group = struct.unpack_from("<I", superblock, 40)[0]
    groups = -(-blocks // _GROUP_BLOCKS)
    file.seek(_BLOCK)
    descriptors = file.read(groups * 32)
    for group in range(groups):
        table_at = struct.unpack_from("<I", descriptors, group * 32 + 8)[0] * _BLOCK
        count = min(per_group, inodes - group * per_group)
        file.seek(table_at)
        table = bytearray(file.read(count * _INODE))
        for at in range(0, len(table), _INODE):
            if table[at : at + 2] != b"\0\0":
                _settle_inode(table, at)
        file.seek(table_at)
        file.write(table)
    file.flush()


def _settle_inode(table: bytearray, at: int) -> None:
    modified = table[at + 16 : at + 20]
    modified_extra = table[at + 136 : at + 140]
    # Times of access and of change, with the bits beyond 32, and of creation; the generation.
    table[at + 8 : at + 16] = modified * 2
    table[at + 132 : at + 136] = modified_extra
    table[at + 140 : at + 152] = modified_extra + modified + modified_extra
    table[at + 100 : at + 104] = bytes(4)
