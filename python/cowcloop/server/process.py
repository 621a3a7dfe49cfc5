"""One process that serves a device: started, watched without polling, and ended."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable

from cowcloop.registry import NewEntry
from cowcloop.server import units
from cowcloop.server.address import Address
from cowcloop.server.errors import ServerError
from cowcloop.server.events import Ready, parse
from cowcloop.server.lines import Lines
from cowcloop.server.loop import Loop
from cowcloop.server.messages import ADDRESS_IN_USE, Message
from cowcloop.server.options import ServeOptions, absolute
from cowcloop.server.parameters import Channels

Report = Callable[[Message], None]

# Seconds until a server that says that it is ready must have answered.
_ANSWER_TIMEOUT = 30.0


class Process(ABC):
    """A running server, of a program that a subclass knows.

    It ends cleanly when we die (the lifeline), in the background until we release it: there it
    forks by itself if the program does so, or is a child that we leave. Either has a session of
    its own: a Ctrl-C at the terminal is ours to answer.
    """

    #: whether it forks by itself in the background, where there is no log file
    FORKS: bool
    #: whether in the background a supervisor starts another server when one was killed
    SUPERVISED = False

    def __init__(
        self,
        options: ServeOptions,
        address: Address,
        entry: NewEntry,
        *,
        loop: Loop,
        report: Report,
        background: bool = False,
        log: str | None = None,
    ) -> None:
        self.pid: int | None = None
        self.ready = False
        # The path of the device that the server has made, if it has.
        self.device: str | None = None
        # Why no other server could go on with it, where none could.
        self.irreplaceable: str | None = None
        # The exit status, the negative signal number when it was killed; None while it runs.
        self.status: int | None = None
        self.address = address
        self._loop = loop
        self._report = report
        self._typed = options.typed_paths()
        self._runs_command = options.runs_command
        self._errors: list[str] = []
        # What it says in the background, where the errors of events are among it as well.
        self._prose: list[str] = []
        # That it does not answer, where it did not say why.
        self._silence: str | None = None
        self._background = background
        self._forks = self.FORKS and background and log is None
        self._log = absolute(log) if background and log is not None else None
        self._log_start = 0
        self._events = Lines(loop, self._on_event, self._on_events_end)
        self._stderr: Lines | None = None
        self._lifeline = self._child_handle = -1
        try:
            with contextlib.ExitStack() as inherited:
                self._spawn(options, entry, inherited)
        except BaseException:
            self._close()
            raise
        _children.add(self)

    def _spawn(
        self,
        options: ServeOptions,
        entry: NewEntry,
        inherited: contextlib.ExitStack,
    ) -> None:
        """Start it; `inherited` closes our copies of the descriptors that are the program's."""

        def give(descriptor: int) -> int:
            inherited.callback(os.close, descriptor)
            return descriptor

        events = give(self._events.writer)
        lifeline, self._lifeline = os.pipe()
        passed = [events, give(lifeline), entry.lock]
        if self._log is not None:
            errors = give(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
            self._log_start = os.fstat(errors).st_size
        else:
            self._stderr = Lines(self._loop, self._on_prose)
            errors = give(self._stderr.writer)
        urls = {name: give(_in_memory(url)) for name, url in options.secrets().items()}
        passed += urls.values()
        channels = Channels(str(entry.control), events, self._background, lifeline, urls)
        command = self._command(options, channels)
        self._report(Message("debug", f"runs {shlex.join(command)}"))
        scope = units.own_scope(entry.id, self.address.program) if self._background else []
        try:
            self._child = subprocess.Popen(
                [*scope, *command] if scope else [units.argv0(command[0]), *command[1:]],
                executable=scope[0] if scope else command[0],
                # The server itself uses neither.
                stdin=None if self._runs_command else subprocess.DEVNULL,
                stdout=None if self._runs_command else subprocess.DEVNULL,
                stderr=errors,
                pass_fds=passed,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerError(f"{command[0]}: cannot be started: {error.strerror}") from None
        self._watch_child()

    def _watch_child(self) -> None:
        try:
            self._child_handle = os.pidfd_open(self._child.pid)
            self._loop.add(self._child_handle, self._on_child_end)
        except BaseException:
            # One that has forked already ends with the lifeline.
            self._child.kill()
            self._child.wait()
            raise
        if not self._forks:
            self.pid = self._child.pid

    @abstractmethod
    def _command(self, options: ServeOptions, channels: Channels) -> list[str]:
        """The words that start it."""

    @abstractmethod
    def _translated(self, line: str) -> Message | None:
        """One line of its standard error, or log; None for one that says nothing."""

    def wait_until_ready(self) -> bool:
        """Wait until the server answers; False when it failed instead (see failure())."""
        while self.status is None and not self.ready:
            self._loop.step()
        return self.ready

    def wait(self) -> None:
        """Wait until the process has ended."""
        while self.status is None:
            self._loop.step()

    def terminate(self) -> None:
        """Ask it to end: it sends its clients away, then closes the device."""
        if self.status is None and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def abort(self) -> None:
        """End a process whose start is given up; returns when it will end."""
        if self._forks and self.pid is None:
            # It may be about to fork: then it gets ready, else the events end.
            self._child.terminate()
            while self.pid is None and not self._events.ended:
                self._events.wait()
        self.terminate()
        if not self._forks:
            self.wait()

    @property
    def supervised(self) -> bool:
        """Whether `pid` is that of a supervisor."""
        return self.SUPERVISED and self._background

    @property
    def address_in_use(self) -> bool:
        """Whether it failed because another program listens at the address."""
        return any(ADDRESS_IN_USE in text for text in (*self._errors, *self._prose))

    def failure(self) -> str | None:
        """Why it failed; None when it ended well, or runs."""
        if not self.ready and self._log is not None:
            self._read_log()
        errors = self._errors or self._prose
        if not self.ready and (errors or self._silence):
            return errors[0] if errors else self._silence
        if self.status is None or self.status == 0:
            return None
        program = self.address.program
        if self.status < 0:
            return f"{program} was killed by {_signal_name(-self.status)}{_memory_limit()}"
        if self._runs_command:
            return f"the command of --run ended with exit status {self.status}"
        if errors:
            return errors[-1]
        return f"{program} ended with exit status {self.status} and did not say why"

    def release(self) -> None:
        """Let it outlive us."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._lifeline, b"\n")

    def abandon(self) -> None:
        """Close our descriptors; one that was not released ends by itself then."""
        _children.discard(self)
        self._close()
        if self.status is None:
            # It lives on without us: no warning about a child that was not waited for.
            self._child.returncode = 0

    def _close(self) -> None:
        """Close our descriptors."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._events.close()
        if self._stderr is not None:
            self._stderr.close()
        self._loop.remove(self._child_handle)

    def _on_event(self, line: bytes) -> None:
        event = parse(line, self._typed)
        if isinstance(event, Ready):
            self._on_ready(event)
        elif event is not None:
            self._on_message(event)

    def _on_ready(self, ready: Ready) -> None:
        self.pid, self.device = ready.pid, ready.device
        self.irreplaceable = ready.irreplaceable
        if self.status is not None and not self._runs_command:
            # It has ended meanwhile: that is the reason, and not that it does not answer.
            return
        self.address.make_private()
        # The command of --run may have come to its end already, and the server with it.
        self.ready = self._runs_command or self.address.answers(_ANSWER_TIMEOUT)
        if not self.ready:
            where = "; see the system log" if self._forks else ""
            self._silence = f"the server at {self.address.uri()} does not answer{where}"
            self.terminate()
            if self._forks:
                self.status = 1

    def _on_events_end(self) -> None:
        # One that ended before it forked, or did not fork, is a child of ours that we see end.
        if self._forks and self.pid is None and self._child.wait() == 0:
            self._silence = f"{self.address.program} ended while it started: see the system log"
            self.status = 1

    def _on_child_end(self) -> None:
        status = self._child.wait()
        self._loop.remove(self._child_handle)
        if self._forks and status == 0:
            return
        self.status = status
        self._events.drain()
        if self._stderr is not None:
            self._stderr.drain()

    def _on_prose(self, line: bytes) -> None:
        """One line of what it writes to its standard error, or log."""
        message = self._translated(line.decode(errors="replace"))
        if message is None:
            return
        # In the background the lines of events are there too.
        if self._background and message.level == "error":
            self._prose.append(message.text)
        elif not self._background or message.level == "debug":
            self._on_message(message)

    def _on_message(self, message: Message) -> None:
        if message.level == "error":
            self._errors.append(message.text)
            # Before it is ready, the first error becomes the reason of the failure.
            if not self.ready:
                return
        self._report(message)

    def _read_log(self) -> None:
        if self._log is None:
            return
        with open(self._log, "rb") as file:
            file.seek(self._log_start)
            for line in file.read(65536).splitlines():
                self._on_prose(line)


def _in_memory(text: str) -> int:
    """A file in memory that holds a text."""
    file = os.memfd_create("cowcloop")
    os.write(file, os.fsencode(text))
    return file


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _memory_limit() -> str:
    """What to add where a program was killed: one that gets no memory may crash."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return f" (it may have {limit} bytes of memory: see ulimit -v)"


# A fork of the user's process must not keep the lifelines alive.
_children: weakref.WeakSet[Process] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for child in list(_children):
        if child._lifeline >= 0:
            os.close(child._lifeline)
            child._lifeline = -1


os.register_at_fork(after_in_child=_after_fork_in_child)
