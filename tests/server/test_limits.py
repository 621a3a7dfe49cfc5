"""Limits of the system: as many clients as fit are served, and the others are told."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from pathlib import Path

import pytest
from support import cloop, rawnbd
from support.server import Server, wait_until
from support.sessions import PLAIN

BLOCK = 4096
UNIT = 1024


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK))
    return path


def _server(soft: int, hard: int, *arguments: Path | str) -> Server:
    return Server(*arguments, under=["prlimit", f"--nofile={soft}:{hard}"])


def _write(client: socket.socket, at: int) -> None:
    """A client's first write."""
    client.sendall(rawnbd.request(rawnbd.WRITE, at, UNIT) + b"w" * UNIT)
    assert rawnbd.receive(client, 16)[:8] == b"\x67\x44\x66\x98\0\0\0\0"


def test_the_limit_of_open_files_is_raised(image: Path) -> None:
    server = _server(64, 512, image)
    limits = Path(f"/proc/{server.nbdkit_pid()}/limits").read_text()
    assert re.search(r"Max open files +512 +512", limits)
    clients = [rawnbd.start(server.uri) for _ in range(60)]
    for client in clients:
        client.close()
    assert server.stop() == 0


def test_sessions_that_fit_can_write_and_the_others_are_told(image: Path, tmp_path: Path) -> None:
    server = _server(256, 256, image, "--sessions", tmp_path / "s")
    pid = server.nbdkit_pid()
    clients: list[socket.socket] = []
    refused = dropped = 0
    for number in range(200):
        try:
            clients.append(rawnbd.start(server.uri, f"pupil-{number}"))
        except rawnbd.Refused:
            refused += 1
        except (EOFError, ConnectionError):
            dropped += 1
    assert len(clients) > 20
    assert refused + dropped == 200 - len(clients)
    assert refused > 0
    for client in clients:
        _write(client, 0)
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) < 256
    # There is room again when some leave.
    for client in clients[:5]:
        client.close()

    def is_let_in() -> bool:
        with contextlib.suppress(rawnbd.Refused, EOFError, ConnectionError):
            clients.append(rawnbd.start(server.uri, "late"))
            return True
        return False

    wait_until(is_let_in, "room for another")
    _write(clients[-1], UNIT)
    for client in clients:
        client.close()
    assert server.stop() == 0, server.errors
    lines = server.errors.splitlines()
    assert any("256 files open" in line and "ulimit -n" in line for line in lines), lines
    assert len(lines) < 60, lines


def test_connections_that_say_nothing_leave_no_one_waiting(image: Path) -> None:
    """They take what there is; the log stays short, and so does the processor's time."""
    server = _server(128, 128, image)
    pid = server.nbdkit_pid()
    silent = [rawnbd.connect(server.uri) for _ in range(120)]
    with pytest.raises((EOFError, ConnectionError, rawnbd.Refused)):
        rawnbd.start(server.uri)
    before = _ticks(pid)
    time.sleep(1)
    assert _ticks(pid) - before < 30
    for client in silent:
        client.close()

    def answers() -> bool:
        with contextlib.suppress(rawnbd.Refused, EOFError, ConnectionError):
            rawnbd.start(server.uri).close()
            return True
        return False

    wait_until(answers, "an answer")
    assert server.stop() == 0, server.errors
    assert len(server.errors.splitlines()) < 60, server.errors


def _ticks(pid: int) -> int:
    """Hundredths of a second that the processor has worked for a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
