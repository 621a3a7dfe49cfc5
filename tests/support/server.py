"""cowcloop's server, started and stopped the way a person does it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from support.programs import PATIENCE, Argument, cowcloop, cowcloop_path, mannered


def socket_of(uri: str) -> Path:
    """The Unix socket that an NBD URI names."""
    return Path(unquote(parse_qs(urlsplit(uri).query)["socket"][0]))


def wait_until(condition: Any, what: str, seconds: float = PATIENCE, pause: float = 0.02) -> None:
    """Waits for ``condition()`` to hold; fails when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(pause)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


def _pump(stream: Any, sink: queue.Queue[str | None]) -> None:
    for line in stream:
        sink.put(line)
    sink.put(None)


class Server:
    """A running ``cowcloop serve``."""

    #: Those that have not been waited for.
    running: ClassVar[list[Server]] = []

    def __init__(
        self,
        *arguments: Argument,
        env: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [*under, cowcloop_path(), "serve", *[os.fspath(argument) for argument in arguments]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            # A group of its own, so that a signal can be sent as a terminal would.
            start_new_session=True,
        )
        self._out: queue.Queue[str | None] = queue.Queue()
        self._err: queue.Queue[str | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=_pump, args=(self.process.stdout, self._out), daemon=True),
            threading.Thread(target=_pump, args=(self.process.stderr, self._err), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self.running.append(self)
        self.errors = ""
        self.uri = ""
        line = self._out.get(timeout=PATIENCE)
        if line is None:
            code = self.wait()
            raise AssertionError(f"serve ended with {code}: {self.errors}")
        self.uri = line.rstrip("\n")
        assert self.uri.startswith("nbd"), self.uri

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def socket(self) -> Path:
        return socket_of(self.uri)

    def nbdkit_pid(self) -> int:
        """The nbdkit process under the command."""
        found = [
            pid
            for pid in children(self.pid)
            if "nbdkit" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        ]
        assert len(found) == 1, f"children of {self.pid}: {children(self.pid)}"
        return found[0]

    def said(self) -> str:
        """What it has said on stderr so far."""
        with contextlib.suppress(queue.Empty):
            while (line := self._err.get_nowait()) is not None:
                self.errors += line
        return self.errors

    def wait(self) -> int:
        """Its exit code, once it has ended; what it said on stderr is in ``errors``."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        self.said()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.running.remove(self)
        return code

    @classmethod
    def kill_all(cls) -> None:
        """What a test that failed may have left running."""
        for server in list(cls.running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it with a signal; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def interrupt(self) -> int:
        """Ctrl-C: the terminal signals the whole group."""
        os.killpg(self.pid, signal.SIGINT)
        return self.wait()


@contextlib.contextmanager
def serving(
    *arguments: Argument, env: Mapping[str, str] | None = None, quiet: bool = True
) -> Iterator[Server]:
    """Serves while the block runs; ends cleanly, with nothing said when ``quiet``."""
    server = Server(*arguments, env=env)
    try:
        yield server
    except BaseException:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)
        raise
    code = server.stop()
    mannered(server.errors)
    assert code == 0, f"serve ended with {code}: {server.errors}"
    if quiet:
        assert server.errors == "", server.errors


def attach(*arguments: Argument, env: Mapping[str, str] | None = None) -> str:
    """``cowcloop attach``: the URI that it prints."""
    done = cowcloop("attach", *arguments, env=env)
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def listed(env: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The devices of ``cowcloop list --json``."""
    document = json.loads(cowcloop("list", "--json", env=env).stdout)
    devices = document if isinstance(document, list) else document["devices"]
    assert isinstance(devices, list)
    return devices


def free_port() -> int:
    """A TCP port that no program listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
