"""nbdkit, which serves a device to NBD clients."""

from __future__ import annotations

from cowcloop.server.command import nbdkit_command
from cowcloop.server.messages import Message, translate
from cowcloop.server.options import ServeOptions
from cowcloop.server.parameters import Channels
from cowcloop.server.process import Process


class Nbdkit(Process):
    """A running nbdkit."""

    FORKS = True

    def _command(self, options: ServeOptions, channels: Channels) -> list[str]:
        return nbdkit_command(options, self.address, channels, foreground=not self._forks)

    def _translated(self, line: str) -> Message | None:
        return translate(line, self._typed, self.address.name)
