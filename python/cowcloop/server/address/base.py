"""The interface of all addresses, and of those of NBD servers."""

from __future__ import annotations

import contextlib
import socket
import struct
from abc import ABC, abstractmethod
from typing import ClassVar

# The newstyle handshake: both magics and the server's flags; then our flags (fixed newstyle, no
# zeroes) and the option ABORT, so that the server sees a client that leaves, not one that fails.
_GREETING = b"NBDMAGICIHAVEOPT"
_GOODBYE = struct.pack(">I8sII", 3, b"IHAVEOPT", 2, 0)


class Address(ABC):
    """Where a server is reached."""

    #: the program that serves there
    program: ClassVar[str]

    @property
    @abstractmethod
    def name(self) -> str:
        """The address as users write it."""

    @property
    def unix(self) -> str | None:
        """The path of the Unix socket, if it is one."""
        return None

    @property
    def on_all_interfaces(self) -> bool:
        """Whether it is every TCP address of the machine."""
        return False

    @abstractmethod
    def uri(self, tls: bool = False) -> str:
        """The address that clients are given."""

    @abstractmethod
    def arguments(self) -> list[str]:
        """The program's arguments to serve here."""

    @abstractmethod
    def check(self) -> None:
        """Refuse an address that cannot work; removes what a dead server has left in the way."""

    @abstractmethod
    def make_private(self) -> None:
        """Keep other users from the address, where the system can."""

    @abstractmethod
    def remove(self) -> None:
        """Remove what the program leaves behind."""

    @abstractmethod
    def answers(self, timeout: float = 1.0) -> bool:
        """Whether a server answers here that has said that it is ready."""


class NbdAddress(Address):
    """Where nbdkit listens."""

    program = "nbdkit"

    @abstractmethod
    def connect(self, timeout: float) -> socket.socket:
        """A connection of a client on this machine; OSError when there is none."""

    def answers(self, timeout: float = 1.0) -> bool:
        """Whether an NBD server accepts a connection and greets."""
        try:
            with self.connect(timeout) as connection:
                greeting = b""
                while len(greeting) < len(_GREETING) + 2:
                    part = connection.recv(len(_GREETING) + 2 - len(greeting))
                    if not part:
                        return False
                    greeting += part
                with contextlib.suppress(OSError):
                    connection.sendall(_GOODBYE)
                    connection.recv(20)
                return greeting.startswith(_GREETING)
        except OSError:
            return False
