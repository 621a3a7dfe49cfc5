"""Ctrl-C and other requests to end, for a command that starts programs that outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from cowcloop.server.loop import Loop
from cowcloop.signals import Interrupted, ignored, piped

# SIGQUIT as well: it would leave a mount behind.
_NOTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Interrupts:
    """A signal is noted, and becomes Interrupted only where the command looks.

    So it never comes between the start of a process and the note of its number. `descriptor` is
    readable once there has been one.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def check(self) -> None:
        """Raise Interrupted when there has been a signal since the last look."""
        try:
            numbers = os.read(self.descriptor, 64)
        except BlockingIOError:
            return
        raise Interrupted(numbers[0])

    def loop(self) -> Loop:
        """A loop that can be interrupted where it waits."""
        loop = Loop()
        loop.add(self.descriptor, self.check, owned=False)
        return loop


@contextlib.contextmanager
def noted_interrupts() -> Iterator[Interrupts]:
    """Note signals in the block, of a program's main thread; those that are ignored stay so.

    After the block has done its work they come too late, and are ignored until the program ends:
    its exit code must not say that it was interrupted.
    """
    numbers = [number for number in _NOTED if not ignored(number)]
    with piped(numbers) as reader:
        yield Interrupts(reader)
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
