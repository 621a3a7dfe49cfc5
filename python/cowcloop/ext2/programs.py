"""The programs of e2fsprogs that make a filesystem."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import BinaryIO

from cowcloop.ext2.errors import Ext2Error
from cowcloop.ext2.layout import BLOCK, INODE
from cowcloop.ext2.measure import Needs

_UUID = "636f7763-6c6f-4f70-8000-657874320000"
_FEATURES = "none,ext_attr,filetype,sparse_super,large_file"

# e2fsck: nothing was wrong, or it has been mended.
_SOUND = (0, 1)
# The function or program that says it.
_SPEAKER = re.compile(r"^\w+: ")


@dataclass(frozen=True)
class Programs:
    """Where they are, and the directory of which a filesystem is made."""

    mke2fs: str
    e2fsck: str
    directory: str

    def make(self, file: BinaryIO, needs: Needs, blocks: int) -> str | None:
        """Run mke2fs; None, or why it failed."""
        owner = os.stat(self.directory)
        extended = ",".join(
            (
                f"hash_seed={_UUID}",
                f"root_owner={owner.st_uid}:{owner.st_gid}",
                "nodiscard",
                "lazy_itable_init=0",
            )
        )
        features = _FEATURES + ",dir_nlink" * needs.crowded
        command = [self.mke2fs, "-q", "-F", "-t", "ext2", "-b", str(BLOCK), "-I", str(INODE)]
        command += ["-m", "0", "-N", str(needs.inodes_with_spare()), "-O", features, "-U", _UUID]
        command += ["-E", extended, "-d", self.directory]
        done = _run([*command, _name(file), str(blocks)], file, needs)
        return _reason(done) if done.returncode else None

    def mend(self, file: BinaryIO, needs: Needs) -> None:
        """Have e2fsck correct the counts of links that have overflown."""
        done = _run([self.e2fsck, "-fy", _name(file)], file, needs)
        if done.returncode not in _SOUND:
            raise Ext2Error(f"{self.directory}: e2fsck: {_reason(done)}")


def _name(file: BinaryIO) -> str:
    return f"/proc/self/fd/{file.fileno()}"


def _run(command: list[str], file: BinaryIO, needs: Needs) -> subprocess.CompletedProcess[bytes]:
    """Run one on the filesystem, with no settings of this machine, and no clock."""
    now = os.environ.get("SOURCE_DATE_EPOCH") or str(needs.newest)
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[file.fileno()],
        env={
            **os.environ,
            "LC_ALL": "C",
            "MKE2FS_CONFIG": "/dev/null",
            "E2FSCK_CONFIG": "/dev/null",
            "SOURCE_DATE_EPOCH": now,
            "E2FSPROGS_FAKE_TIME": now,
        },
    )


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why it failed: its last line, or the first of the same cause, which names the file."""
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return f"exit status {done.returncode}"
    last = _SPEAKER.sub("", lines[-1])
    cause, _, _ = last.partition(" while ")
    return next((_SPEAKER.sub("", line) for line in lines if cause in line), last)
