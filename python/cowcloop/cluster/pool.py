"""An executor, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from ..errors import ClusterError

#: Workers of an executor that does not tell their number.
_UNKNOWN = 16

#: Uncompressed bytes of the ranges that are out at a time, at most.
_IN_FLIGHT = 1 << 30


@dataclass(frozen=True)
class Pool:
    """Workers, and the way to give them work."""

    executor: Executor
    workers: int
    #: its name in messages
    name: str = "the executor"
    #: called while a result is awaited: raises ClusterError where no worker can bring it
    check: Callable[[], None] | None = None

    @classmethod
    def of(cls, executor: Executor) -> Pool:
        """The pool that an executor is."""
        if not callable(getattr(executor, "submit", None)):
            raise TypeError(f"executor has no submit(): {executor!r}")
        return cls(executor, max(1, _workers(executor)), f"the {type(executor).__name__}")

    def window(self, piece: int) -> int:
        """How many ranges of so many bytes may be out: enough that no worker waits for one."""
        return max(2, min(2 * self.workers + 2, _IN_FLIGHT // piece))

    def lost(self, reason: str) -> ClusterError:
        """The error that ends the work."""
        return ClusterError(f"{self.name}: {reason}")


def one_line(error: BaseException) -> str:
    """What an error says, on one line, with its kind."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _workers(executor: Executor) -> int:
    # concurrent.futures has no name for it; its own executors have this attribute.
    count = getattr(executor, "_max_workers", None)
    if isinstance(count, int):
        return count
    # Dask's has the client.
    client: Any = getattr(executor, "_client", None)
    if hasattr(client, "nthreads"):
        return sum(client.nthreads().values())
    return _UNKNOWN
