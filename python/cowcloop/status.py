"""What a device tells of itself: its state and counters, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["CowfileStatus", "DiskStatus", "Extent"]


class Extent(NamedTuple):
    """A range of a device, in bytes, that is known to be zeros or has to be read."""

    offset: int
    length: int
    zero: bool


@dataclass(frozen=True)
class CowfileStatus:
    """One cowfile of a device. Blocks are of 1 KiB."""

    path: str
    #: ``clean``, ``dirty``, ``read-only``, ``closed``, ``failed``, or ``removed``: its changes
    #: are lost when it is closed
    state: str
    blocks_used: int
    blocks_total: int
    #: blocks that the next flush makes durable there
    pending: int
    bitmap_bytes: int
    #: bytes that the file takes on its medium
    allocated: int
    reads: int
    writes: int
    flushes: int
    #: of what lies below, through this cowfile
    base_reads: int
    base_read_bytes: int
    #: writes, zeros, discards and flushes that have failed since it was opened
    failures: int


@dataclass(frozen=True)
class DiskStatus:
    """A device as it is now; sizes in bytes."""

    image: str
    size: int
    read_only: bool
    #: requests that reached the image
    base_reads: int
    base_read_bytes: int
    #: decompressed blocks that were at hand, and those that had to be inflated
    cache_hits: int
    cache_misses: int
    cache_bytes: int
    cache_limit: int
    #: the lowest first
    cowfiles: tuple[CowfileStatus, ...]
    #: of an image with a digest tree: its digest, how much of it was verified, and how often a
    #: block was not what the tree says
    digest: str | None
    verified_bytes: int | None
    verify_failures: int | None

    @classmethod
    def from_dict(cls, status: Mapping[str, Any]) -> DiskStatus:
        """From the form that the engine gives it."""
        verity = status.get("verity") or {}
        return cls(
            image=status["image"],
            size=status["size"],
            read_only=status["read_only"],
            base_reads=status["base"]["reads"],
            base_read_bytes=status["base"]["read_bytes"],
            cache_hits=status["cache"]["hits"],
            cache_misses=status["cache"]["misses"],
            cache_bytes=status["cache"]["bytes"],
            cache_limit=status["cache"]["limit"],
            cowfiles=tuple(CowfileStatus(**cowfile) for cowfile in status["cowfiles"]),
            digest=verity.get("digest"),
            verified_bytes=verity.get("verified_bytes"),
            verify_failures=verity.get("failures"),
        )
