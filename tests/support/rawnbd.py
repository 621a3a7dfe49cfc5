"""An NBD client of a few lines, which does what no library would: asks, and hangs up."""

from __future__ import annotations

import socket
import struct
from urllib.parse import urlsplit

from support.programs import PATIENCE
from support.server import socket_of

GO, READ, WRITE = 7, 0, 1
ACK, ERROR = 1, 1 << 31


class Refused(Exception):
    """The server's error reply to the export name, with its words."""


def connect(uri: str) -> socket.socket:
    """A connection on which nothing has been said."""
    parts = urlsplit(uri)
    if parts.port is None:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(str(socket_of(uri)))
        return client
    return socket.create_connection((parts.hostname or "", parts.port), PATIENCE)


def receive(client: socket.socket, length: int) -> bytes:
    """Exactly so many bytes."""
    found = b""
    while len(found) < length:
        part = client.recv(length - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def start(uri: str, export: str = "") -> socket.socket:
    """A connection that may send requests."""
    client = connect(uri)
    try:
        assert receive(client, 18)[:8] == b"NBDMAGIC"
        name = export.encode()
        choice = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
        client.sendall(struct.pack(">I8sII", 1, b"IHAVEOPT", GO, len(choice)) + choice)
        while True:
            _, _, kind, length = struct.unpack(">QIII", receive(client, 20))
            words = receive(client, length)
            if kind & ERROR:
                raise Refused(words.decode())
            if kind == ACK:
                return client
    except BaseException:
        client.close()
        raise


def request(command: int, offset: int, length: int, number: int = 0) -> bytes:
    """One request, without what is to be written."""
    return struct.pack(">IHHQQI", 0x25609513, 0, command, number, offset, length)


def requests(count: int, length: int, command: int = READ) -> bytes:
    """So many requests for the first bytes of the device."""
    return b"".join(request(command, 0, length, number) for number in range(count))
