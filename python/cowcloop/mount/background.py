"""A FUSE program in the background, such as fuse2fs.

Its standard error is a FIFO in the registry's entry, which the program itself holds open for
reading, too: it never gets a SIGPIPE, unread text takes no more than the pipe has room for, and
the command that unmounts can read it. The FIFO's flock is held as long as the program runs: no
process number has to be trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from cowcloop import mounts
from cowcloop.locks import is_locked
from cowcloop.mount.errors import MountError
from cowcloop.server import units
from cowcloop.server.interrupts import Interrupts

_LIMIT = 1 << 16


def start(command: Sequence[str], fifo: Path, point: str, interrupts: Interrupts) -> None:
    """Run a program in the directory of `fifo`; returns when its file system is at `point`."""
    os.mkfifo(fifo, 0o600)
    said = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(said, fcntl.LOCK_EX)
        before = mounts.at(point)
        name = Path(command[0]).name
        scope = units.own_scope(fifo.parent.name, name)
        child = subprocess.Popen(
            [*scope, *command] if scope else [units.argv0(command[0]), *command[1:]],
            executable=scope[0] if scope else command[0],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=fifo.parent,
            start_new_session=True,
        )
        try:
            mounted = _wait_until_mounted(child.pid, point, before, interrupts)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        if not mounted:
            child.wait()
            lines = _lines(said)
            reason = "; ".join(lines) if lines else f"exit status {child.returncode}"
            raise MountError(f"{name}: {reason}")
        # It lives on without us: no warning about a child that was not waited for.
        child.returncode = 0
    finally:
        os.close(said)


def running(fifo: Path) -> bool:
    """Whether the program of a FIFO runs."""
    try:
        return is_locked(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False


@contextlib.contextmanager
def ending(fifo: Path) -> Iterator[list[str]]:
    """Unmount in the block: then this waits for the program's end, and yields its last words."""
    lines: list[str] = []
    try:
        handle = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield lines
        return
    try:
        yield lines
        fcntl.flock(handle, fcntl.LOCK_SH)
        lines += _lines(handle)
    finally:
        os.close(handle)


def _wait_until_mounted(
    pid: int, point: str, before: mounts.Mount | None, interrupts: Interrupts
) -> bool:
    """False when the program has ended instead."""
    poll = select.poll()
    ended = os.pidfd_open(pid)
    try:
        with open(mounts.TABLE, "rb") as table:
            # The kernel tells each change of the table as an exceptional condition.
            poll.register(table, select.POLLPRI)
            poll.register(ended, select.POLLIN)
            poll.register(interrupts.descriptor, select.POLLIN)
            while True:
                found = mounts.at(point)
                if found is not None and found != before:
                    return True
                if any(descriptor == ended for descriptor, _ in poll.poll()):
                    return False
                interrupts.check()
    finally:
        os.close(ended)


def _lines(handle: int) -> list[str]:
    try:
        text = os.read(handle, _LIMIT).decode(errors="replace")
    except BlockingIOError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]
