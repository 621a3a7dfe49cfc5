"""A client of the kernel's NBD that reconnects: requests wait while its server is away.

nbd-client has the kernel fail them at once. The kernel's netlink interface lets them wait for a
connection to the next server: `include/uapi/linux/nbd-netlink.h`.
"""

from __future__ import annotations

import os
import socket
import struct

from inside import PATIENCE, wait_until  # type: ignore[import-not-found]

_REQUEST, _ACK, _ERROR = 1, 4, 2
_CONTROL_FAMILY, _GET_FAMILY = 16, 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_CONNECT, _DISCONNECT, _RECONFIGURE = 1, 2, 3
_INDEX, _SIZE, _BLOCK_SIZE, _SERVER_FLAGS, _SOCKETS, _DEAD_CONNECTION_TIMEOUT = 1, 2, 3, 5, 7, 8
_NESTED = 1 << 15

_NO_ZEROES = 3
_OPT_EXPORT_NAME = 1
# Seconds for which requests wait for another connection: more than any test takes.
_WAIT = 3600


class KernelNbd:
    """A device that is connected to a server's Unix socket."""

    def __init__(self, number: int, path: str) -> None:
        self.device = f"/dev/nbd{number}"
        self._index = _attribute(_INDEX, struct.pack("=I", number))
        self._path = path
        with self._connection() as (connection, size, flags):
            values = ((_SIZE, size), (_BLOCK_SIZE, 512), (_SERVER_FLAGS, flags))
            wait = ((_DEAD_CONNECTION_TIMEOUT, _WAIT),)
            words = [_attribute(kind, struct.pack("=Q", n)) for kind, n in (*values, *wait)]
            _nbd(_CONNECT, self._index, *words, _sockets(connection))

    def reconnect(self) -> None:
        """Hand the kernel a connection to the next server, once that is there."""

        def connected() -> bool:
            try:
                with self._connection() as (connection, _, _):
                    _nbd(_RECONFIGURE, self._index, _sockets(connection))
            except OSError:
                return False
            return True

        wait_until(connected, "another server", 5 * PATIENCE)

    def disconnect(self) -> None:
        """Give the device back."""
        _nbd(_DISCONNECT, self._index)

    def _connection(self) -> _Connection:
        return _Connection(self._path)


class _Connection:
    """A socket behind the handshake, with the device's size and the server's flags."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> tuple[socket.socket, int, int]:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(self._path)
            magic, _ = struct.unpack(">16sH", self._receive(18))
            if magic != b"NBDMAGICIHAVEOPT":
                raise OSError("not an NBD server")
            words = struct.pack(">I8sII", _NO_ZEROES, b"IHAVEOPT", _OPT_EXPORT_NAME, 0)
            self._socket.sendall(words)
            size, flags = struct.unpack(">QH", self._receive(10))
        except BaseException:
            self._socket.close()
            raise
        return self._socket, size, flags

    def __exit__(self, *_: object) -> None:
        # The kernel has its own reference.
        self._socket.close()

    def _receive(self, length: int) -> bytes:
        data = self._socket.recv(length, socket.MSG_WAITALL)
        if len(data) < length:
            raise ConnectionError("the server has hung up")
        return data


def _sockets(connection: socket.socket) -> bytes:
    number = _attribute(1, struct.pack("=I", connection.fileno()))
    return _attribute(_SOCKETS | _NESTED, _attribute(1 | _NESTED, number))


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def _nbd(command: int, *attributes: bytes) -> None:
    name = _attribute(_FAMILY_NAME, b"nbd\0")
    found = _ask(_CONTROL_FAMILY, _GET_FAMILY, name)
    at, family = 4, 0
    while at < len(found):
        length, kind = struct.unpack_from("=HH", found, at)
        if kind == _FAMILY_ID:
            (family,) = struct.unpack_from("=H", found, at + 4)
        at += length + -length % 4
    _ask(family, command, *attributes)


def _ask(family: int, command: int, *attributes: bytes) -> bytes:
    """A command of generic netlink's; what it answers before it is acknowledged."""
    body = struct.pack("=BBH", command, 1, 0) + b"".join(attributes)
    head = struct.pack("=IHHII", 16 + len(body), family, _REQUEST | _ACK, 1, 0)
    answer = b""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as netlink:
        netlink.bind((0, 0))
        netlink.send(head + body)
        while True:
            received = netlink.recv(1 << 16)
            while received:
                length, kind = struct.unpack_from("=IH", received)
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", received, 16)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return answer
                answer = received[16:length]
                received = received[length + -length % 4 :]
