"""Where a server is reached, one file per way: its address, and whether a server answers there."""

from __future__ import annotations

from cowcloop.server.address.base import Address
from cowcloop.server.address.fuse import FuseAddress
from cowcloop.server.address.tcp import (
    TcpAddress,
    endpoint,
    free_port,
    is_all_interfaces,
    parse_tcp,
)
from cowcloop.server.address.ublk import UblkAddress
from cowcloop.server.address.unix import UnixAddress

__all__ = [
    "Address",
    "FuseAddress",
    "TcpAddress",
    "UblkAddress",
    "UnixAddress",
    "endpoint",
    "free_port",
    "is_all_interfaces",
    "parse_tcp",
]
