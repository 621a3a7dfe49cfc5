"""What the guest of test_memory.py does: more than fits into memory, over a server in it."""

from __future__ import annotations

import hashlib
import os
import random

from inside import Daemon, sh, tell  # type: ignore[import-not-found]

IMAGE = "image=/payload/images/base.cloop"
_MIB = 1 << 20


def memory() -> int:
    """All of it, in MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB


def written() -> None:
    """Files of more than the memory, written into a mounted file system."""
    daemon = Daemon("ublk", IMAGE, "cow=/data/files.cow", f"size={512 * _MIB}")
    sh(f"e2fsck -fy {daemon.device}; resize2fs {daemon.device}")
    os.makedirs("/mnt/files")
    sh(f"mount {daemon.device} /mnt/files")
    noise = random.Random(1).randbytes(_MIB)
    count = memory() * 3 // 2
    whole = hashlib.sha256()
    with open("/mnt/files/large", "wb") as file:
        for number in range(count):
            block = noise[number:] + noise[:number]
            file.write(block)
            whole.update(block)
    sh("sync -f /mnt/files; echo 3 >/proc/sys/vm/drop_caches")
    found = hashlib.sha256()
    with open("/mnt/files/large", "rb") as file:
        for block in iter(lambda: file.read(_MIB), b""):
            found.update(block)
    tell("written", [count > memory(), found.digest() == whole.digest()])
    sh("umount /mnt/files")
    sh(f"e2fsck -fn {daemon.device}", "check")
    tell("end", daemon.end())


sh("modprobe ublk_drv")
written()
sh("dmesg --level=err,crit,alert,emerg", "kernel")
