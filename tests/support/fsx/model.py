"""What each byte of a device may be, also after the server was killed.

A kill is not a power cut: what was written is in the system's cache. So a block that a flush
has put into the cowfile reads as it was last acknowledged. One that came there since is, as a
whole, either that or as the last flush found it, for only its bit can be missing. Requests
without an answer may have changed each of their sectors, or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from mmap import mmap
from typing import NamedTuple

from support.fsx.moments import Moments

BLOCK = 1024
SECTOR = 512
#: Bytes that are compared at a time.
_CHUNK = 1 << 20


class Change(NamedTuple):
    """Bytes that a request puts into the device."""

    at: int
    data: bytes
    #: A write, after which its blocks live in the cowfile: zeros may be there without it.
    stores: bool

    @property
    def end(self) -> int:
        return self.at + len(self.data)

    @property
    def blocks(self) -> range:
        return range(self.at // BLOCK, (self.end - 1) // BLOCK + 1)


def _results(old: bytes, start: int, changes: Sequence[Change]) -> set[bytes]:
    """What the bytes at ``start`` may become when any of the changes are made."""
    here = [change for change in changes if change.at < start + len(old) and change.end > start]
    found = set()
    for count in range(len(here) + 1):
        for chosen in itertools.combinations(here, count):
            new = bytearray(old)
            for change in chosen:
                first = max(change.at, start)
                last = min(change.end, start + len(old))
                new[first - start : last - start] = change.data[
                    first - change.at : last - change.at
                ]
            found.add(bytes(new))
    return found


class Model:
    """The device as it was last acknowledged, and what else it may hold after a kill."""

    def __init__(self, content: bytearray | mmap) -> None:
        self.now = content
        #: Blocks that were ever changed -> as they were before.
        self._first: dict[int, bytes] = {}
        #: Requests without an answer when the server was killed.
        self.open: list[Change] = []
        #: Blocks that have changed since the last flush -> as it found them.
        self._flushed: dict[int, bytes] = {}
        #: Those of them that live in the cowfile now.
        self._stored: set[int] = set()
        #: Blocks that live in the cowfile since a flush.
        self._kept: set[int] = set()
        #: While a snapshot is taken.
        self.moments: Moments | None = None
        self._restacked = False

    def read(self, at: int, length: int) -> bytes:
        return bytes(self.now[at : at + length])

    def _block(self, number: int) -> bytes:
        return self.read(number * BLOCK, BLOCK)

    def write(self, change: Change) -> None:
        """The change was acknowledged."""
        for block in change.blocks:
            if block not in self._kept:
                self._flushed.setdefault(block, self._block(block))
                if change.stores:
                    self._stored.add(block)
        self._put(change.at, change.data)

    def _put(self, at: int, data: bytes) -> None:
        for block in range(at // BLOCK, (at + len(data) - 1) // BLOCK + 1):
            if block not in self._first:
                self._first[block] = self._block(block)
        self.now[at : at + len(data)] = data

    def flush(self) -> None:
        """A flush was acknowledged that began after all that is known here."""
        self._kept |= self._stored
        self._stored.clear()
        self._flushed.clear()

    def forced(self, change: Change) -> None:
        """Of an acknowledged change it is known that it is durable."""
        for block in change.blocks:
            self._flushed.pop(block, None)
            self._stored.discard(block)
            if change.stores:
                self._kept.add(block)

    def begin(self, changes: Sequence[Change]) -> None:
        """These changes are about to be sent."""
        if self.moments is not None:
            blocks = {block: self._block(block) for change in changes for block in change.blocks}
            self.moments.begin(
                {
                    block: (old, _results(old, block * BLOCK, changes))
                    for block, old in blocks.items()
                }
            )

    def failed(self, change: Change, found: bytes) -> None:
        """The server refused a change; since then its bytes read as ``found``."""
        for block in change.blocks:
            first, last = max(block * BLOCK, change.at), min((block + 1) * BLOCK, change.end)
            part = found[first - change.at : last - change.at]
            self._check_sectors(first, part, [change], "after a request that failed")
            if part != self.read(first, last - first):
                self.write(Change(first, part, change.stores))

    def restacked(self) -> None:
        """The device is below another cowfile from now on, which is empty."""
        self._restacked = True

    def fresh(self) -> None:
        """The writable cowfile is gone."""
        for block, data in self._first.items():
            self.now[block * BLOCK : block * BLOCK + len(data)] = data
        for known in (self._first, self._flushed, self._stored, self._kept, self.open):
            known.clear()

    def check(self, at: int, found: bytes) -> None:
        """Fails where the device holds what it must not after a kill, or a clean end.

        What it holds is what it has to hold from now on. The range is one of whole blocks.
        """
        unsure = {block for change in self.open for block in change.blocks} | set(self._flushed)
        for start in range(0, len(found), _CHUNK):
            chunk = found[start : start + _CHUNK]
            numbers = range((at + start) // BLOCK, -(-(at + start + len(chunk)) // BLOCK))
            if chunk == self.read(at + start, len(chunk)):
                numbers_to_check: Iterable[int] = (n for n in unsure if n in numbers)
            else:
                numbers_to_check = numbers
            for number in numbers_to_check:
                self._check_block(number, found[number * BLOCK - at : (number + 1) * BLOCK - at])

    def checked(self) -> None:
        """All of the device has been checked."""
        self.open.clear()
        self._stored.clear()
        self._flushed.clear()
        if self._restacked:
            self._kept.clear()
            self._first.clear()
            self._restacked = False

    def _check_block(self, number: int, found: bytes) -> None:
        start = number * BLOCK
        flushed = self._flushed.get(number, self._block(number))
        if number in self._kept or found != flushed:
            self._check_sectors(start, found, self.open, "after a kill")
        if found != flushed:
            # Its bit is set, or it would show what lies below.
            self._kept.add(number)
        if found != self._block(number):
            self._put(start, found)

    def _check_sectors(self, at: int, found: bytes, changes: Sequence[Change], when: str) -> None:
        end = at + len(found)
        while at < end:
            stop = min((at // SECTOR + 1) * SECTOR, end)
            part = found[len(found) - (end - at) : len(found) - (end - stop)]
            now = self.read(at, stop - at)
            if part not in _results(now, at, changes):
                known = "kept" if at // BLOCK in self._kept else "not kept"
                raise AssertionError(
                    f"{when}, {stop - at} bytes at {at} (block {known}) are {part[:24].hex()}..., "
                    f"acknowledged {now[:24].hex()}..., {len(changes)} requests without an answer"
                )
            at = stop
