"""What a device was at each moment while a snapshot of it was taken."""

from __future__ import annotations


class Moments:
    """Moment 0 is before all requests, and the others are those of requests sent together."""

    def __init__(self) -> None:
        self._last = 0
        #: Block -> moments at which it changed, what it was before, and what it may have been then.
        self._changed: dict[int, list[tuple[int, bytes, set[bytes]]]] = {}

    def begin(self, blocks: dict[int, tuple[bytes, set[bytes]]]) -> None:
        """A moment at which blocks change: what they are, and what they may become."""
        self._last += 1
        for number, (before, during) in blocks.items():
            self._changed.setdefault(number, []).append((self._last, before, during))

    def all(self) -> set[int]:
        return set(range(self._last + 1))

    def narrow(self, moments: set[int], block: int, found: bytes, now: bytes) -> None:
        """Leaves those moments at which the block may have been as it was found."""
        if block not in self._changed and found == now:
            return
        possible: set[int] = set()
        following = 0
        for moment, before, during in self._changed.get(block, ()):
            if found == before:
                possible.update(range(following, moment))
            if found in during:
                possible.add(moment)
            following = moment + 1
        if found == now:
            possible.update(range(following, self._last + 1))
        moments &= possible
