"""The events that the plugin tells by lines of JSON, as the program that starts it reads them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from cowcloop.server.command import plugin_path
from support import cloop, nbdclient
from support.programs import PATIENCE, program
from support.server import serving

BLOCK = 4096
PLAIN = cloop.sample(16 * BLOCK, BLOCK)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK))
    return path


class Plugin:
    """nbdkit with the plugin, run without Python in between."""

    def __init__(self, folder: Path, *parameters: str) -> None:
        self.socket = folder / "nbd.sock"
        reader, writer = os.pipe()
        self.events: IO[str] = os.fdopen(reader)
        command = [program("nbdkit", "nbdkit"), "-f", "-U", str(self.socket), plugin_path()]
        self.process = subprocess.Popen(
            [*command, f"events={writer}", *parameters],
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[writer],
        )
        os.close(writer)

    def event(self) -> dict[str, Any]:
        line = self.events.readline()
        assert line, "the events have ended"
        event: dict[str, Any] = json.loads(line)
        return event

    def end(self) -> str:
        """What was written to standard error by the time that it has ended."""
        self.process.terminate()
        log: str = self.process.communicate(timeout=PATIENCE)[1]
        return log


@contextlib.contextmanager
def plugin(folder: Path, *parameters: str) -> Iterator[Plugin]:
    started = Plugin(folder, *parameters)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()
        started.events.close()


def refuse_a_client(server: Plugin) -> None:
    with contextlib.suppress(nbdclient.module().Error):
        nbdclient.connect(f"nbd+unix:///.hidden?socket={server.socket}")


@pytest.mark.parametrize("logged", [True, False])
def test_the_life_of_a_server(image: Path, tmp_path: Path, logged: bool) -> None:
    parameters = [f"image={image}", f"sessions={tmp_path}/s", f"log={str(logged).lower()}"]
    with plugin(tmp_path, *parameters) as server:
        assert server.event() == {"event": "ready", "pid": server.process.pid}
        refuse_a_client(server)
        event = server.event()
        assert event["event"] == "client-refused"
        assert event["text"].startswith('export ".hidden": not a session name')
        log = server.end()
        assert server.event() == {"event": "ended"}
        assert server.events.read() == ""
        assert server.process.returncode == 0
        assert (event["text"] in log) == logged


def test_why_it_does_not_start(image: Path, tmp_path: Path) -> None:
    for parameter, reason in (
        (f"image={tmp_path}/none", f"{tmp_path}/none: "),
        ("cache=12Q", 'cache: "12Q" is not a size'),
    ):
        with plugin(tmp_path, "log=false", parameter) as server:
            event = server.event()
            assert event["event"] == "error"
            assert event["text"].startswith(reason)
            assert server.process.wait(PATIENCE) != 0
            assert reason not in server.end()


def test_an_event_without_a_reader_is_told_in_the_log(image: Path, tmp_path: Path) -> None:
    with plugin(tmp_path, "log=false", f"image={image}", f"sessions={tmp_path}/s") as server:
        assert server.event()["event"] == "ready"
        server.events.close()
        refuse_a_client(server)
        assert 'export ".hidden": not a session name' in server.end()
        assert server.process.returncode == 0


@pytest.mark.parametrize("descriptor", ["99", "2", "x"])
def test_no_such_descriptor(image: Path, tmp_path: Path, descriptor: str) -> None:
    command = [program("nbdkit", "nbdkit"), "-f", "-U", f"{tmp_path}/s", plugin_path()]
    done = subprocess.run(
        [*command, f"image={image}", f"events={descriptor}"],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode != 0
    assert b"error: events: " in done.stderr


def test_the_user_reads_of_a_refused_client_once(image: Path, tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    with serving("--sessions", sessions, image, quiet=False) as server:
        refused = server.uri.replace("nbd+unix:///", "nbd+unix:///.hidden")
        with pytest.raises(nbdclient.module().Error):
            nbdclient.connect(refused)
    lines = [line for line in server.errors.splitlines() if "not a session name" in line]
    assert len(lines) == 1
