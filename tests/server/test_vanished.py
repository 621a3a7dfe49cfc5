"""Clients that ask for much and hang up end their own connections, and leave nothing behind."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from support import nbdclient, rawnbd
from support.server import Server, alive, free_port, wait_until

MIB = 1 << 20
PLAIN = random.Random(5).randbytes(2 * MIB)

# More than nbdkit's threads for a connection can answer before the client is gone.
MANY = rawnbd.requests(16, MIB)
# What a client may send, and what follows it: the thread that reads breaks the connection off
# while others have answers for it, or a thread that answers does.
WAYS = {
    "hangs up": MANY,
    "sends rubbish": rawnbd.requests(15, MIB) + b"x" * 28,
    "cuts a request short": rawnbd.requests(15, MIB) + b"x" * 5,
    # Errors that nbdkit finds by itself, and the plugin is not asked about.
    "asks for nonsense": rawnbd.requests(4, MIB) + rawnbd.requests(12, MIB, command=99),
}
#: Of nbdkit, for a client.
THREADS = 17
CLIENTS = 100
TOGETHER = 20


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _memory(pid: int) -> int:
    """Bytes that the process has in memory."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) << 10


@pytest.mark.parametrize("door", ["unix", "tcp"])
def test_nothing_is_left_of_clients_that_vanish(tmp_path: Path, door: str) -> None:
    image = tmp_path / "i"
    image.write_bytes(PLAIN)
    options = ("--tcp", str(free_port())) if door == "tcp" else ()
    server = Server(*options, image, tmp_path / "c")
    pid = server.nbdkit_pid()
    handle = nbdclient.connect(server.uri)
    handle.pwrite(b"acknowledged", 0)
    threads, descriptors = _threads(pid), _descriptors(pid)
    for sent in WAYS.values():
        for _ in range(CLIENTS // TOGETHER):
            clients = [rawnbd.start(server.uri) for _ in range(TOGETHER)]
            for client in clients:
                client.sendall(sent)
            time.sleep(0.02)
            for client in clients:
                client.close()
    assert handle.pread(12, 0) == b"acknowledged"
    # Some of the first client's threads may have begun since they were counted.
    wait_until(lambda: _threads(pid) < threads + THREADS, "its threads to end")
    wait_until(lambda: _descriptors(pid) <= descriptors, "its sockets to be closed")
    # Of 400 clients: 6400 MiB of answers, or 17 threads each.
    assert _memory(pid) < 200 * MIB
    assert nbdclient.connect(server.uri).pread(12, 0) == b"acknowledged"
    handle.shutdown()
    assert server.stop() == 0, server.errors
    assert "Assertion" not in server.errors
    assert not alive(pid)
