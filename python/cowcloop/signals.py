"""Signals that ask a program to end: Ctrl-C, and those of an administrator or a lost terminal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal asked the program to end; the text, if any, is what it leaves unfinished.

    Not a KeyboardInterrupt, which click would handle in its own way.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


#: The signal that has come in a block of raised().
_come: int | None = None


@contextmanager
def raised() -> Iterator[None]:
    """Let these signals raise Interrupted in the block, of a program's main thread.

    Signals that are ignored stay ignored: nohup and a shell's background jobs rely on it.
    What Python calls behind the program's back, such as a callback of its garbage collector,
    may be where a signal arrives, and from there no exception reaches the block: long work
    calls raise_missed() now and then.
    """
    global _come
    hook = sys.unraisablehook

    def interrupt(number: int, _frame: FrameType | None) -> None:
        global _come
        _come = number
        raise Interrupted(number)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        # The callback's own confusion follows from it.
        if _come is None:
            hook(args)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.getsignal(n) for n in numbers if not ignored(n)}
    for number in before:
        signal.signal(number, interrupt)
    sys.unraisablehook = unraisable
    try:
        yield
        raise_missed()
    finally:
        _come = None
        sys.unraisablehook = hook
        for number, handler in before.items():
            # The block may have changed it for good.
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)


def raise_missed() -> None:
    """Raise Interrupted where a signal has come whose exception was lost."""
    if _come is not None:
        raise Interrupted(_come)


@contextmanager
def piped(numbers: Sequence[int]) -> Iterator[int]:
    """In the block these signals do nothing but arrive, as bytes, at the descriptor given.

    For a program's main thread. Handlers that the block has set itself stay.
    """

    def note(_number: int, _frame: FrameType | None) -> None:
        """The number is in the pipe already."""

    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    handlers = {number: signal.signal(number, note) for number in numbers}
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def ignored(number: int) -> bool:
    """Whether a signal does nothing."""
    return signal.getsignal(number) is signal.SIG_IGN
