"""The error of a server's life."""

from __future__ import annotations

from cowcloop.errors import CowcloopError


class ServerError(CowcloopError):
    """A device could not be served, or its server failed; the message is one line."""
