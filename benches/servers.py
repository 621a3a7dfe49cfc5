"""Servers of the same device, on Unix sockets of their own, for the time of one measurement."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cowcloop

from benches.programs import program

_START_SECONDS = 30


@contextmanager
def ours(image: Path, *cows: Path, cache: str | None = None) -> Iterator[str]:
    """The URI of cowcloop's server."""
    with cowcloop.serve(image, *cows, cache=cache) as server:
        yield server.uri


@contextmanager
def qemu_nbd(image: Path, form: str, *options: str) -> Iterator[str]:
    """The URI of qemu-nbd, with as many clients at once as nbdcopy opens."""
    command = [program("qemu-nbd"), "--persistent", "--shared=8"]
    with _running([*command, f"--format={form}", *options, str(image)], "--socket={}") as uri:
        yield uri


@contextmanager
def nbdkit(*words: str, scratch: Path | None = None) -> Iterator[str]:
    """The URI of nbdkit with one of its own plugins; ``scratch`` is where filters keep files."""
    command = [program("nbdkit"), "--foreground", "--unix={}", *words]
    if scratch is not None:
        command = ["env", f"TMPDIR={scratch}", *command]
    with _running(command) as uri:
        yield uri


@contextmanager
def _running(command: list[str], socket_option: str = "") -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="cowcloop-bench-", dir="/tmp"))
    path = folder / "nbd.sock"
    words = [word.replace("{}", str(path)) for word in [*command, socket_option] if word]
    log = folder / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=errors)
    try:
        _wait(path, process, log)
        yield f"nbd+unix:///?socket={path}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip()
            raise RuntimeError(f"{process.args!r}: exit code {process.returncode}: {said}")
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{process.args!r} did not listen in {_START_SECONDS} s")
