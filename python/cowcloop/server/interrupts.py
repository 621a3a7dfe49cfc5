"""Ctrl-C at a command that starts something that outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from cowcloop.server.loop import Loop


class Interrupts:
    """Ctrl-C is noted, and becomes a KeyboardInterrupt only where the command looks.

    So it never comes between the start of a process and the note of who it is. `descriptor` is
    readable once it has been pressed.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def check(self) -> None:
        """Raise KeyboardInterrupt when Ctrl-C has been pressed since the last look."""
        try:
            os.read(self.descriptor, 64)
        except BlockingIOError:
            return
        raise KeyboardInterrupt

    def loop(self) -> Loop:
        """A loop that can be interrupted where it waits."""
        loop = Loop()
        loop.add(self.descriptor, self.check, owned=False)
        return loop


@contextlib.contextmanager
def noted_interrupts() -> Iterator[Interrupts]:
    """Note Ctrl-C in the block, of a program's main thread.

    When the block has done its work it is too late, and Ctrl-C is ignored until the program ends:
    its exit code must not say that it was interrupted.
    """

    def ignore(_signal: int, _frame: FrameType | None) -> None:
        """The number is in the pipe already."""

    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    handler = signal.signal(signal.SIGINT, ignore)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield Interrupts(reader)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException:
        signal.signal(signal.SIGINT, handler)
        raise
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
