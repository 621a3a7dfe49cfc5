"""Executors and workers as tests of spread work need them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any

from support.programs import missing


def require_processes() -> None:
    """Skips the test where Python's processes cannot share a lock, and so are no workers."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        missing(f"no semaphores for Python's processes, which lie in /dev/shm: {error.strerror}")


def processes(count: int = 2, *, blind: bool = False) -> ProcessPoolExecutor:
    """Processes; blind ones see none of the files that this one sees."""
    require_processes()
    start = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, start, initializer=_blind if blind else None)


def _blind() -> None:
    from cowcloop.cluster import sight

    sight._mark = lambda path: None


def die() -> None:
    """End the process that this is called in, as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


class Inline(Executor):
    """Does the work when it is submitted; `spoil` may do something else instead."""

    def __init__(self, spoil: Callable[[int, Callable[[], Any]], Any] | None = None) -> None:
        self.spoil = spoil
        self.calls: list[str] = []
        self.out = 0
        self.most_out = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of a call that is made at once."""
        future: _Counted = _Counted(self)
        number = len(self.calls)
        self.calls.append(fn.__name__)
        try:
            if self.spoil is None:
                result = fn(*args, **kwargs)
            else:
                result = self.spoil(number, lambda: fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return future


class _Counted(Future[Any]):
    """A future that its executor counts until its result is taken."""

    def __init__(self, executor: Inline) -> None:
        super().__init__()
        self._executor = executor
        executor.out += 1
        executor.most_out = max(executor.most_out, executor.out)

    def result(self, timeout: float | None = None) -> Any:
        """The result, which is no longer out then."""
        self._executor.out -= 1
        return super().result(timeout)
