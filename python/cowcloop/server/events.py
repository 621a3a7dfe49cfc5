"""A server's events: lines of JSON on a descriptor of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from cowcloop.server.messages import Message, as_typed

# The form in which the user reads an event that has a text.
_LEVELS = {
    "error": "error",
    "request-failed": "error",
    "client-refused": "error",
    "warning": "warning",
}


@dataclass(frozen=True)
class Ready:
    """Clients can use the process of this number, and the device that it may have made.

    `irreplaceable` is why no other server could go on with the device, where none could.
    """

    pid: int
    device: str | None = None
    irreplaceable: str | None = None


def parse(line: bytes, typed: Mapping[str, str]) -> Ready | Message | None:
    """One line; None for an event that the user need not know of.

    `typed` maps the absolute paths that the server was given to what the user wrote.
    """
    try:
        event = json.loads(line)
        name = event["event"]
        if name == "ready":
            return Ready(event["pid"], event.get("device"), event.get("irreplaceable"))
        if name in _LEVELS:
            return Message(_LEVELS[name], as_typed(event["text"], typed))
    except (ValueError, KeyError, TypeError):
        return Message("debug", f"not an event: {line.decode(errors='replace')}") if line else None
    return None
