"""nginx with the images of a folder, for the time of one measurement."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches.line import Line
from benches.programs import program

_CONFIG = """
{user}
daemon off;
pid {own}/pid;
error_log {own}/errors;
events {{}}
http {{
    log_format ranges "$uri $status $http_range";
    access_log {own}/requests ranges;
    client_body_temp_path {own}/body;
    proxy_temp_path {own}/proxy;
    fastcgi_temp_path {own}/fastcgi;
    uwsgi_temp_path {own}/uwsgi;
    scgi_temp_path {own}/scgi;
    keepalive_requests 100000;
    sendfile on;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
}}
"""
_START_SECONDS = 30
#: What cowcloop fetches at least, and keeps together.
_CHUNK = 16 << 10


@dataclass(frozen=True)
class Web:
    """A running one; ``port`` may be that of a line to it."""

    port: int
    _log: Path

    def url(self, file: Path) -> str:
        """The URL of a file of the folder."""
        return f"http://127.0.0.1:{self.port}/{file.name}"

    def chunks(self, file: Path) -> Counter[int]:
        """How often each chunk of a file was asked for."""
        asked: Counter[int] = Counter()
        for line in self._log.read_text().splitlines():
            found = re.fullmatch(rf"/{re.escape(file.name)} 206 bytes=(\d+)-(\d+)", line)
            if found:
                first, last = map(int, found.groups())
                asked.update(range(first // _CHUNK, last // _CHUNK + 1))
        return asked


@contextmanager
def serving(root: Path, line: Line | None = None) -> Iterator[Web]:
    """The files of a folder, at the other end of a line or without one."""
    command = program("nginx")
    with tempfile.TemporaryDirectory(prefix="cowcloop-bench-") as folder:
        own, port = Path(folder), _free_port()
        # Its workers would be of another user, for whom a home is closed.
        user = "user root;" if os.geteuid() == 0 else ""
        config = own / "conf"
        config.write_text(_CONFIG.format(user=user, own=own, port=port, root=root))
        words = [command, "-c", str(config), "-p", folder]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
            try:
                _wait(process, port, own / "errors")
                if line is None:
                    yield Web(port, own / "requests")
                else:
                    with line.to(port) as near:
                        yield Web(near, own / "requests")
            finally:
                process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, errors: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"nginx: exit code {process.returncode}: {errors.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nginx did not listen in {_START_SECONDS} s")
