"""Lines that come through a pipe."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable

from cowcloop.server.loop import Loop


class Lines:
    """The end of a pipe that lines are read from, each handed on when it is whole."""

    def __init__(
        self,
        loop: Loop,
        take: Callable[[bytes], None],
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._take = take
        self._at_end = at_end
        self._unfinished = b""
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        loop.add(self._reader, self._read)

    @property
    def ended(self) -> bool:
        """Whether no line will come any more."""
        return not self._loop.watches(self._reader)

    def wait(self) -> None:
        """Wait for lines, or for the end, and for nothing else."""
        select.select([self._reader], [], [])
        self._read()

    def drain(self) -> None:
        """Take what a writer has left that has ended."""
        with contextlib.suppress(BlockingIOError):
            while not self.ended:
                self._read()

    def close(self) -> None:
        """Read no more of it."""
        self._loop.remove(self._reader)

    def _read(self) -> None:
        part = os.read(self._reader, 65536)
        lines = (self._unfinished + part).split(b"\n")
        self._unfinished = lines.pop() if part else b""
        for line in lines:
            self._take(line)
        if not part:
            self.close()
            self._at_end()
