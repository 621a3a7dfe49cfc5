"""Telling systemd how a service is: the protocol of sd_notify(3), for Type=notify."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(**states: str) -> None:
    """Tell states such as ``READY="1"``; nothing happens where no service manager listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A name in the abstract namespace begins with a zero byte, written as @.
    name = os.fsencode(address)
    name = b"\0" + name[1:] if name.startswith(b"@") else name
    lines = [f"{key}={value}".replace("\n", " ") for key, value in states.items()]
    message = "\n".join(lines).encode(errors="surrogateescape")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(name)
        manager.sendall(message)
