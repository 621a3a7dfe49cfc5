"""A device served in the foreground: as long as this process runs, or until close()."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from types import TracebackType
from typing import Any

from cowcloop import control, registry
from cowcloop.errors import CowcloopError
from cowcloop.server import block_device
from cowcloop.server.closing import check_closed, removed_cowfile
from cowcloop.server.errors import ServerError
from cowcloop.server.loop import Loop
from cowcloop.server.messages import Message
from cowcloop.server.options import ServeOptions
from cowcloop.server.process import Process, Report
from cowcloop.server.start import started
from cowcloop.source import shown

# Seconds in which a server that is to end must report its state.
_STATUS_TIMEOUT = 5.0

_logger = logging.getLogger("cowcloop.server")


def _log_message(message: Message) -> None:
    level = {"error": logging.ERROR, "warning": logging.WARNING}.get(message.level, logging.DEBUG)
    _logger.log(level, "%s", message.text)


class Server:
    """A served device: a context manager whose `uri` NBD clients connect to.

    Made ready by serve(), or by start() for a caller that drives the loop. close() returns when
    everything is on disk, and raises ServerError when the server failed. A program that ends
    without it closes the server as well.
    """

    def __init__(
        self, options: ServeOptions, *, loop: Loop | None = None, report: Report = _log_message
    ) -> None:
        self.options = options
        self._loop = loop or Loop()
        self._report = report
        self._owner = os.getpid()
        self._thread: threading.Thread | None = None
        self._entry: registry.Entry | None = None
        self._process: Process | None = None
        self._record: registry.Record | None = None

    @property
    def uri(self) -> str:
        """The NBD URI of the device."""
        return self._ready().uri

    @property
    def socket(self) -> str | None:
        """The path of the Unix socket, or None when it is served over TCP."""
        return self._ready().socket

    @property
    def pid(self) -> int:
        """The server's process number."""
        return self._ready().pid

    def status(self) -> dict[str, Any]:
        """The running device's figures: what `cowcloop list --json` shows."""
        return control.status(self._control(), self._ready())

    def sync(self) -> None:
        """Bring everything acknowledged to disk now."""
        control.request(self._control(), "sync")

    def start(self) -> None:
        """Start the server; returns when the device answers, raises ServerError when it cannot."""
        with started(self.options, loop=self._loop, report=self._report) as (process, entry):
            self._process, self._entry, self._record = process, entry, entry.record

    def wait(self) -> None:
        """Wait until the server has ended by itself or by `cowcloop detach`."""
        if self._thread is not None:
            self._thread.join()
        elif self._process is not None:
            self._process.wait()

    def run_in_background(self) -> None:
        """Watch the server in a thread of its own, so that the caller need not."""
        self._thread = threading.Thread(
            target=self._process_of().wait, name=f"cowcloop-server-{self.pid}", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self.close()
            raise ServerError("the system refuses a thread to watch the server") from None
        atexit.register(self._close_at_exit)

    def close(self) -> None:
        """End the server; returns when all is on disk. A second call does nothing."""
        entry, process = self._entry, self._process
        if entry is None or process is None or os.getpid() != self._owner:
            return
        problem = self._lost()
        self._entry = None
        atexit.unregister(self._close_at_exit)
        try:
            if process.status is None:
                block_device.let_go(self._ready())
            elif process.status < 0:
                # It was killed.
                block_device.clean_up(self._ready())
        except CowcloopError as error:
            problem = str(error)
        process.terminate()
        self.wait()
        problem = process.failure() or problem
        process.abandon()
        entry.remove()
        process.address.remove()
        if problem is not None:
            raise ServerError(problem)
        check_closed(self.options.writable_cow)

    def _lost(self) -> str | None:
        """The changes that would be lost if the server ended now, in one line."""
        if self.options.writable_cow is None and self.options.sessions is None:
            return None
        with contextlib.suppress(CowcloopError):
            removed = removed_cowfile(self._control(), self._ready(), _STATUS_TIMEOUT)
            if removed is not None:
                return f"{removed.path}: removed or replaced while served: its changes are lost"
        return None

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._entry is None or self._record is None else self._record.uri
        return f"<cowcloop.Server {shown(self.options.image)!r} {state}>"

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except CowcloopError as error:
            _logger.error("%s", error)

    def _process_of(self) -> Process:
        if self._process is None:
            raise ServerError("the server has not been started")
        return self._process

    def _ready(self) -> registry.Record:
        if self._record is None:
            raise ServerError("the server has not been started")
        return self._record

    def _control(self) -> str:
        if self._entry is None:
            raise ServerError("the server is closed")
        return str(self._entry.control)
