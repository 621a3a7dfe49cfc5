"""Clients that reconnect: what their dead server had acknowledged is there in the next one."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.programs import PATIENCE, cowcloop, program
from support.server import Server


class Qemu:
    """qemu-io, which waits for another server and sends again what was not answered."""

    def __init__(self, socket: Path, export: str) -> None:
        node = f"driver=nbd,server.type=unix,server.path={socket},export={export}"
        # Without the option each of its writes is flushed.
        command = [program("qemu-io", "qemu-utils"), "-t", "writeback", "--image-opts"]
        self._process = subprocess.Popen(
            [*command, f"{node},reconnect-delay={PATIENCE}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def does(self, command: str) -> str:
        """What a command that reads or writes says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        said = ""
        # Its last line: how quick it was.
        while " ops; " not in said and "failed" not in said:
            line = self._process.stdout.readline()
            assert line, said
            said += line
        return said

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the device."""
        if failure != (None, None, None):
            self._process.kill()
        self._process.communicate("quit\n", timeout=PATIENCE)


@pytest.mark.parametrize("session", [False, True])
def test_a_client_goes_on_with_the_next_server(
    session: bool, chicken: Path, tmp_path: Path
) -> None:
    """Nothing is flushed; what the first server had acknowledged the third has, too."""
    written = ["--sessions", tmp_path / "c"] if session else [tmp_path / "c"]
    address = ["-U", tmp_path / "s"]
    words = [chicken, *written, *address, "--", f"kept={tmp_path / 'kept'}"]
    server = Server(*words)
    with Qemu(tmp_path / "s", export="pc17" if session else "") as client:
        for number in range(3):
            assert "wrote 4096/4096" in client.does(f"write -P {number + 1} {number * 64}k 4k")
            os.kill(server.nbdkit_pid(), signal.SIGKILL)
            assert server.wait() == 1
            server = Server(*words)
            for before in range(number + 1):
                said = client.does(f"read -P {before + 1} {before * 64}k 4k")
                assert "read 4096/4096" in said
                assert "Pattern verification failed" not in said
    assert server.stop() == 0
    cow = tmp_path / "c/pc17.cow" if session else tmp_path / "c"
    assert b"clean" in cowcloop("info", cow).stdout
