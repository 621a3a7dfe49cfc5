"""A Unix socket."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from urllib.parse import quote

from cowcloop.errors import CowcloopError
from cowcloop.registry import SOCKET_PATH_LIMIT, remove_dead_socket
from cowcloop.server.address.base import NbdAddress


@dataclass(frozen=True)
class UnixAddress(NbdAddress):
    """A Unix socket's absolute path."""

    path: str

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    @property
    def unix(self) -> str | None:
        """The path."""
        return self.path

    def uri(self, tls: bool = False) -> str:
        """The NBD URI that clients are given."""
        scheme = "nbds" if tls else "nbd"
        return f"{scheme}+unix:///?socket={quote(os.fsencode(self.path), safe='/')}"

    def arguments(self) -> list[str]:
        """nbdkit's options to listen here."""
        return ["-U", self.path]

    def connect(self, timeout: float) -> socket.socket:
        """A connection of a client; OSError when there is none."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(self.path)
        except OSError:
            connection.close()
            raise
        return connection

    def check(self) -> None:
        """Refuse a path that cannot be used; a dead socket that is in the way is removed."""
        length = len(os.fsencode(self.path))
        if length > SOCKET_PATH_LIMIT:
            raise CowcloopError(
                f"{self.path}: a Unix socket's path has at most {SOCKET_PATH_LIMIT} bytes, "
                f"not {length}: choose a shorter one with --unix"
            )
        if not os.path.lexists(self.path) or remove_dead_socket(self.path):
            return
        raise CowcloopError(
            f"{self.path} exists: another server listens there, or it is another file; "
            "choose another name, or remove it"
        )

    def make_private(self) -> None:
        """Leave the socket to its owner alone.

        nbdkit makes it with mode 0755, which already keeps others from connecting.
        """
        os.chmod(self.path, 0o600)

    def remove(self) -> None:
        """Remove the socket, which nbdkit leaves behind."""
        remove_dead_socket(self.path)
