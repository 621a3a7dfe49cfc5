"""A TCP port."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from cowcloop.errors import CowcloopError
from cowcloop.server.address.base import NbdAddress

# Hosts that stand for all interfaces, and the one of them that a client on this machine uses.
_ALL_INTERFACES = {"0.0.0.0": "127.0.0.1", "0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}


@dataclass(frozen=True)
class TcpAddress(NbdAddress):
    """A TCP host and port."""

    host: str
    port: int

    @property
    def name(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def on_all_interfaces(self) -> bool:
        """Whether it is every TCP address of the machine."""
        return is_all_interfaces(self.host)

    def uri(self, tls: bool = False) -> str:
        """The NBD URI that clients are given."""
        host = self._host_here
        return f"{'nbds' if tls else 'nbd'}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def arguments(self) -> list[str]:
        """nbdkit's options to listen here."""
        return ["-i", self.host, "-p", str(self.port)]

    def connect(self, timeout: float) -> socket.socket:
        """A connection of a client on this machine; OSError when there is none."""
        return socket.create_connection((self._host_here, self.port), timeout)

    def check(self) -> None:
        """Nothing is refused: whether the port is free shows when nbdkit listens there."""

    def make_private(self) -> None:
        """Nothing is done: a port cannot be kept from other users of the machine."""

    def remove(self) -> None:
        """Nothing is left behind."""

    @property
    def _host_here(self) -> str:
        """The host for a client on this machine."""
        return _ALL_INTERFACES.get(self.host, self.host)


def is_all_interfaces(host: str) -> bool:
    """Whether a host stands for every interface of the machine."""
    return host in _ALL_INTERFACES


def parse_tcp(text: str) -> tuple[str, int]:
    """Host and port in ``[HOST:]PORT``; ValueError says what is wrong. Port 0: a free one."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host = "127.0.0.1"
    elif host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, such as [::1]:10809")
    if not host:
        raise ValueError(f"{text!r} names no host: write HOST:PORT or PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{text!r}: the port must be a number from 0 to 65535")
    return host, int(port)


def endpoint(text: str) -> tuple[str, int] | None:
    """Host and port, or None when it is the path of a socket; ValueError for a bad port."""
    port = text.rpartition(":")[2]
    if "/" in text or not (port.isascii() and port.isdigit()):
        return None
    return parse_tcp(text)


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
