"""Tells the user what a command is waiting for, when that takes long."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from cowcloop.cli import console
from cowcloop.registry import Entry

# Seconds that a server may take before the user is told. It may have much to write.
_PATIENCE = 5.0


@contextlib.contextmanager
def waiting_for(entry: Entry, *, replaced: bool = False) -> Iterator[None]:
    """Name the server in the block when it is stopped, at once, or when it is slow.

    Of one that is `replaced` its supervisor alone is waited for.
    """
    record = entry.record
    # Once a server has ended, its number may be another process's.
    if record is None or not entry.alive():
        yield
        return
    processes = [record.pid] if replaced else [record.pid, *_children(record.pid)]
    stopped = next(filter(_stopped, processes), None)
    if stopped is not None:
        console.warning(
            f"{record.uri}: its server (process {stopped}) is stopped: "
            f"waiting until it goes on (kill -CONT {stopped})"
        )
        yield
        return
    slow = f"{record.uri}: this still waits for its server (process {record.pid})"
    timer = threading.Timer(_PATIENCE, lambda: console.warning(slow))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _children(pid: int) -> list[int]:
    """The server of a supervisor; none where the kernel does not tell."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _stopped(pid: int) -> bool:
    """Whether a process is stopped, by a signal or a debugger."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    # The name before it may contain any character.
    return stat.rpartition(")")[2].split()[0] in "Tt"
