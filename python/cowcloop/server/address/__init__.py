"""Where a server listens, one file per transport: its URI, and whether a server answers there."""

from __future__ import annotations

from cowcloop.server.address.base import Address
from cowcloop.server.address.tcp import TcpAddress, free_port, is_all_interfaces, parse_tcp
from cowcloop.server.address.unix import UnixAddress

__all__ = [
    "Address",
    "TcpAddress",
    "UnixAddress",
    "free_port",
    "is_all_interfaces",
    "parse_tcp",
]
