"""Where a server listens: a Unix socket or a TCP port; its URI, and whether it answers."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from urllib.parse import quote

from cowcloop.errors import CowcloopError
from cowcloop.runtime import SOCKET_PATH_LIMIT, remove_dead_socket

# The newstyle handshake: both magics and the server's flags; then our flags (fixed newstyle, no
# zeroes) and the option ABORT, so that the server sees a client that leaves, not one that fails.
_GREETING = b"NBDMAGICIHAVEOPT"
_GOODBYE = struct.pack(">I8sII", 3, b"IHAVEOPT", 2, 0)

# Hosts that stand for all interfaces, and the one of them that a client on this machine uses.
_ALL_INTERFACES = {"0.0.0.0": "127.0.0.1", "0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}


@dataclass(frozen=True)
class Address:
    """A Unix socket's absolute path, or a TCP host and port."""

    unix: str | None = None
    host: str = ""
    port: int = 0

    def uri(self, tls: bool = False) -> str:
        """The NBD URI that clients are given."""
        scheme = "nbds" if tls else "nbd"
        if self.unix is not None:
            return f"{scheme}+unix:///?socket={quote(os.fsencode(self.unix), safe='/')}"
        host = self._host_here
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def on_all_interfaces(self) -> bool:
        """Whether it is every TCP address of the machine."""
        return self.host in _ALL_INTERFACES

    @property
    def name(self) -> str:
        """The address as people write it."""
        return self.unix if self.unix is not None else f"{self.host}:{self.port}"

    def make_private(self) -> None:
        """Let nobody but the owner use the socket.

        nbdkit makes it with mode 0755, which already keeps others from connecting.
        """
        if self.unix is not None:
            os.chmod(self.unix, 0o600)

    def nbdkit_args(self) -> list[str]:
        """nbdkit's options to listen here."""
        if self.unix is not None:
            return ["-U", self.unix]
        return ["-i", self.host, "-p", str(self.port)]

    def answers(self, timeout: float = 1.0) -> bool:
        """Whether an NBD server accepts a connection and greets."""
        try:
            with self._connect(timeout) as connection:
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

    def check(self) -> None:
        """Refuse an address that cannot work; removes a dead socket that is in the way."""
        if self.unix is None:
            return
        length = len(os.fsencode(self.unix))
        if length > SOCKET_PATH_LIMIT:
            raise CowcloopError(
                f"{self.unix}: a Unix socket's path has at most {SOCKET_PATH_LIMIT} bytes, "
                f"not {length}: choose a shorter one with --unix"
            )
        if not os.path.lexists(self.unix) or remove_dead_socket(self.unix):
            return
        raise CowcloopError(
            f"{self.unix} exists: another server listens there, or it is another file; "
            "choose another name, or remove it"
        )

    def remove(self) -> None:
        """Remove the Unix socket, which nbdkit leaves behind."""
        if self.unix is not None:
            remove_dead_socket(self.unix)

    @property
    def _host_here(self) -> str:
        """The host for a client on this machine."""
        return _ALL_INTERFACES.get(self.host, self.host)

    def _connect(self, timeout: float) -> socket.socket:
        if self.unix is None:
            return socket.create_connection((self._host_here, self.port), timeout)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(self.unix)
        except OSError:
            connection.close()
            raise
        return connection


def free_port(host: str) -> int:
    """A TCP port of this host that is free now (another program may take it before we do)."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(place)
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise CowcloopError(f"{host}: {error.strerror or error}") from None
