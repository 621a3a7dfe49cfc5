"""What the guest of test_memory.py does: more than fits into memory, over a server in it."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

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


def swapped() -> None:
    """More memory in use than there is: the rest is swapped out to the device."""
    daemon = Daemon("ublk", IMAGE, "cow=/data/swap.cow", f"size={256 * _MIB}")
    sh(f"mkswap {daemon.device} && swapon {daemon.device}")
    noise = random.Random(2).randbytes(_MIB)
    count = memory() * 5 // 4
    blocks = [bytearray(noise) for _ in range(count)]
    for number, block in enumerate(blocks):
        block[:8] = number.to_bytes(8, "little")
    used = int(Path("/proc/swaps").read_text().splitlines()[1].split()[3])
    right = [block[:8] == n.to_bytes(8, "little") for n, block in enumerate(blocks)]
    right += [block[8:] == noise[8:] for block in blocks]
    tell("swapped", [used > 0, all(right)])
    del blocks
    sh(f"swapoff {daemon.device}")
    tell("swap end", daemon.end())


sh("modprobe ublk_drv")
written()
swapped()
sh("dmesg --level=err,crit,alert,emerg", "kernel")
