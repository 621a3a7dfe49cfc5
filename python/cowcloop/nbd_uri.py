"""Addresses of NBD servers, in all the ways that users write them."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

# Names of this machine, for a client on it.
_LOCAL = ("localhost", "127.0.0.1", "::1")

# Where a URI names no port.
_NBD_PORT = 10809


def place_of(address: str) -> tuple[str, int] | None:
    """An address in its one form, however it was written: host and port, or a socket's path and 0.

    None for anything else.
    """
    for prefix in ("nbd:unix:", "unix:"):
        if address.startswith(prefix):
            return os.path.realpath(address[len(prefix) :]), 0
    named = "://" in address
    try:
        parts = urlsplit(address if named else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    for part in parts.query.split("&"):
        if part.startswith("socket="):
            path = unquote(part[len("socket=") :], errors="surrogateescape")
            return os.path.realpath(path), 0
    if host is None or (port is None and not named):
        return None
    return "localhost" if host in _LOCAL else host, port or _NBD_PORT


def export_name(address: str) -> str | None:
    """The export that a URI names; None for the one without a name, and for what is no URI."""
    if "://" not in address or place_of(address) is None:
        return None
    return unquote(urlsplit(address).path[1:], errors="surrogateescape") or None
