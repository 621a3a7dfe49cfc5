"""Ranges in flight, whose results are taken in order.

So many are out at a time, which bounds the memory. A range whose worker died, or failed for
another reason than the data, is given out again, a bounded number of times.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, Generic, TypeVar

from ..errors import CowcloopError
from ..signals import raise_missed
from .pool import Pool, one_line

#: How often a range is given out.
ATTEMPTS = 4
#: Seconds between two looks at the pool while a result is awaited.
_PATIENCE = 1.0

Job = TypeVar("Job")
#: A function and its arguments.
Call = tuple[Callable[..., Any], tuple[Any, ...]]


class InOrder(Generic[Job]):
    """Jobs, given to a pool."""

    def __init__(self, pool: Pool, call: Callable[[Job, bool], Call], window: int) -> None:
        """`call` makes what a worker does for a job, with its bytes where that is asked for."""
        self._pool = pool
        self._call = call
        self._window = window
        #: Some worker does not see the file: the bytes are sent from now on.
        self._send = False
        self._out: deque[tuple[Job, bool, Future[Any]]] = deque()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any]]:
        """Each job with its result, in order."""
        try:
            for job in jobs:
                self._out.append((job, *self._submit(job, self._send)))
                if len(self._out) >= self._window:
                    yield self._next()
            while self._out:
                yield self._next()
            raise_missed()
        finally:
            for _, _, future in self._out:
                # Of a cluster that is gone nothing can be cancelled.
                with contextlib.suppress(Exception):
                    future.cancel()

    def _next(self) -> tuple[Job, Any]:
        job, sent, future = self._out[0]
        attempts = 1
        while True:
            try:
                result = self._wait(future)
                if result is not None:
                    self._out.popleft()
                    return job, result
                self._send = True
            except BrokenExecutor as error:
                raise self._pool.lost(f"its workers have died: {one_line(error)}") from error
            except ImportError as error:
                reason = f"a worker has not what it needs, cowcloop with it: {one_line(error)}"
                raise self._pool.lost(reason) from error
            except CowcloopError:
                # What a worker cannot read this program may, or says itself why not.
                if sent:
                    raise
                sent = True
            except Exception as error:
                attempts += 1
                if attempts > ATTEMPTS:
                    reason = f"{job} failed {ATTEMPTS} times: {one_line(error)}"
                    raise self._pool.lost(reason) from error
                self._look()
            sent, future = self._submit(job, sent or self._send)
            self._out[0] = (job, sent, future)

    def _submit(self, job: Job, send: bool) -> tuple[bool, Future[Any]]:
        function, arguments = self._call(job, send)
        try:
            return send, self._pool.executor.submit(function, *arguments)
        except BrokenExecutor as error:
            raise self._pool.lost(f"its workers have died: {one_line(error)}") from error
        except RuntimeError as error:
            raise self._pool.lost(f"it takes no work: {one_line(error)}") from error

    def _wait(self, future: Future[Any]) -> Any:
        while True:
            # Dask has callbacks of its own in this program.
            raise_missed()
            try:
                return future.result(timeout=_PATIENCE)
            except NotYet:
                # A worker may have raised the same, which is a built-in class.
                if future.done():
                    raise
                self._look()

    def _look(self) -> None:
        if self._pool.check is not None:
            self._pool.check()
