"""Client of a served device's control channel: JSON lines over a private Unix socket."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from cowcloop.errors import CowcloopError

if TYPE_CHECKING:
    from cowcloop.registry import Record

# A status reply with hundreds of sessions stays far below this.
_REPLY_LIMIT = 16 << 20


class ControlError(CowcloopError):
    """The served device did not answer, or answered with an error."""


class NoAnswer(ControlError):
    """Nothing was heard from the served device: it has ended, or takes too long."""


class Silent(NoAnswer):
    """The served device is there, and takes too long: its server is stopped, or hangs."""


def request(
    path: str | os.PathLike[str],
    command: str,
    /,
    *,
    timeout: float | None = None,
    **fields: object,
) -> dict[str, Any]:
    """Send one command and return its reply, without the ``ok`` field.

    `timeout` is in seconds for each step; None waits until the device is done (a sync
    of much data takes a while). ControlError carries the device's own one-line message.
    """
    line = json.dumps({"command": command, **fields}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connected = False
        try:
            connection.connect(os.fspath(path))
            connected = True
            connection.sendall(line)
            reply = _read_line(connection)
        except socket.timeout:
            raise Silent(f"{path}: the server does not answer") from None
        except OSError as error:
            kind = ControlError if connected else NoAnswer
            raise kind(f"{path}: {error.strerror or error}") from None
    try:
        answer = json.loads(reply)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ControlError(f"{path}: the server's answer to {command} is not understood")
    if answer.pop("ok", False) is not True:
        raise ControlError(str(answer.get("error", f"{command} failed")))
    return answer


def status(
    path: str | os.PathLike[str], record: Record, *, timeout: float | None = None
) -> dict[str, Any]:
    """A served device's figures, with the paths of its record.

    The server's JSON has no place for a name that is not UTF-8; the record keeps its bytes.
    """
    figures = request(path, "status", timeout=timeout)
    figures["image"] = record.image
    for cow, name in zip(figures["cowfiles"], record.cowfiles):
        cow["path"] = name
    for session in figures.get("sessions", ()):
        session["path"] = f"{record.sessions}/{session['name']}.cow"
    return figures


def _read_line(connection: socket.socket) -> bytes:
    reply = bytearray()
    while not reply.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            break
        reply += part
        if len(reply) > _REPLY_LIMIT:
            raise OSError("the answer is too long")
    return bytes(reply)
