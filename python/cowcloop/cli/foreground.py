"""The foreground server: signals, the parent process and the log file."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from cowcloop.cli import console
from cowcloop.cli.console import report
from cowcloop.server import Server
from cowcloop.server.loop import Loop
from cowcloop.server.messages import Message
from cowcloop.server.notify import notify
from cowcloop.server.options import ServeOptions
from cowcloop.server.process import Report
from cowcloop.signals import ignored, piped

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The server was told to end."""


def run(options: ServeOptions, *, log: str | None, exit_with_parent: bool) -> None:
    """Serve until a signal, the end of the parent, or `cowcloop detach`."""
    loop = Loop()
    with contextlib.ExitStack() as stack:
        say = report if log is None else stack.enter_context(_log_to(log))
        stop = stack.enter_context(_stop_requests(loop))
        if exit_with_parent:
            parent = os.pidfd_open(os.getppid())

            def parent_ended() -> None:
                loop.remove(parent)
                stop.request()

            loop.add(parent, parent_ended)
        server = Server(options, loop=loop, report=say)
        try:
            server.start()
        except Stopped:
            return
        try:
            console.result(server.uri)
            notify(READY="1", STATUS=f"serving {server.uri}")
            server.wait()
        except Stopped:
            notify(STOPPING="1", STATUS="writing everything to disk")
            console.note("ending: everything goes to disk")
        finally:
            stop.armed = False
            server.close()


class _Stop:
    """Turns a request to stop into Stopped, raised where the loop waits; once only."""

    def __init__(self) -> None:
        self.armed = True

    def request(self) -> None:
        if self.armed:
            self.armed = False
            raise Stopped


@contextlib.contextmanager
def _stop_requests(loop: Loop) -> Iterator[_Stop]:
    """Signals become readable bytes on a pipe that the loop watches."""
    stop = _Stop()
    # nohup makes a program ignore SIGHUP, and that is respected. A shell does the same with SIGINT
    # for a job in the background, but there SIGINT is the usual way to end a server.
    with piped([n for n in _SIGNALS if n != signal.SIGHUP or not ignored(n)]) as reader:

        def on_signal() -> None:
            armed = stop.armed
            numbers = os.read(reader, 64)
            if not armed and signal.SIGINT in numbers:
                console.error("still writing to disk; kill -9 would lose what was not flushed")
            stop.request()

        loop.add(reader, on_signal, owned=False)
        try:
            yield stop
        finally:
            loop.close()


@contextlib.contextmanager
def _log_to(path: str) -> Iterator[Report]:
    with open(path, "a", encoding="utf-8", errors="replace", buffering=1) as file:

        def write(message: Message) -> None:
            if message.level == "debug" and not console.levels.verbose:
                return
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            file.write(f"{stamp} {message.level}: {message.text}\n")

        yield write
