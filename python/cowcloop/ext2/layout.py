"""The sizes of an ext2 filesystem as we have it made."""

from __future__ import annotations

BLOCK = 4096
INODE = 256
GROUP_BLOCKS = 8 * BLOCK
#: Nanoseconds in a second: floats would round times.
NANO = 10**9
#: Pointers in an indirect block.
POINTERS = BLOCK // 4
#: Blocks that an inode points to itself.
DIRECT = 12
#: Names that lead to one inode, at most; a directory has one in each of its own besides two.
MOST_LINKS = 65000

# Seconds since 1970 that an inode of 256 bytes holds: 34 bits, from 2^31 before to May 2446.
EARLIEST = -(1 << 31)
LATEST = (1 << 34) - (1 << 31) - 1


def held(seconds: int) -> int:
    """A time, or the nearest to it that an inode holds."""
    return min(max(seconds, EARLIEST), LATEST)
