"""cowcloopd, which serves a device to the kernel: its command line, its messages, its process."""

from __future__ import annotations

import os
import re

from cowcloop.errors import CowcloopError
from cowcloop.server.messages import Message, as_typed
from cowcloop.server.options import ServeOptions
from cowcloop.server.parameters import LIBRARY, Channels, parameters
from cowcloop.server.process import Process

# A name that begins with @ is what an initramfs gives it (units.argv0).
_LINE = re.compile(r"(?:\S*/|@)?cowcloopd: (?:(?P<level>warning|error): )?(?P<text>.*)")


def daemon_path() -> str:
    """The program that belongs to this package."""
    path = os.environ.get("COWCLOOP_DAEMON") or str(LIBRARY / "cowcloopd")
    if not os.path.exists(path):
        raise CowcloopError(f"{path}: the program is missing: install cowcloop again")
    return os.path.abspath(path)


class Daemon(Process):
    """A running cowcloopd."""

    FORKS = False
    # In the background programs use the device for long: they outlive a server.
    SUPERVISED = True

    def _command(self, options: ServeOptions, channels: Channels) -> list[str]:
        # Its standard error is ours only as long as we are there.
        log = ["--syslog"] if self._background and self._log is None else []
        words = parameters(options, channels)
        supervised = ["supervise"] if self.supervised else []
        return [daemon_path(), *supervised, *self.address.arguments(), *log, *words]

    def _translated(self, line: str) -> Message | None:
        found = _LINE.fullmatch(line.rstrip())
        level, text = (found["level"], found["text"]) if found else (None, line.rstrip())
        return Message(level or "error", as_typed(text, self._typed)) if text else None
