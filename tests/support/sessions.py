"""Sessions of a served image, for tests: the image, and a client of one session."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from support import cloop, nbdclient
from support.server import Server

BLOCK = 4096
PLAIN = cloop.sample(1 << 20, BLOCK, 13)


def join(server: Server, name: str) -> Any:
    """A client of one session."""
    handle = nbdclient.module().NBD()
    handle.set_export_name(name)
    handle.connect_unix(str(server.socket))
    return handle


def session_uri(server: Server, name: str) -> str:
    """The URI of one session."""
    scheme, _, rest = server.uri.partition("///")
    return f"{scheme}///{quote(name)}{rest}"
