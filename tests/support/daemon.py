"""cowcloopd, started and ended by the tests themselves."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cowcloop import control
from cowcloop.control import ControlError
from cowcloop.server.daemon import daemon_path

from support.programs import PATIENCE, run
from support.server import wait_until

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16

_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(file: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), with the modes that Python's has not."""
    if _libc.fallocate(file, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Daemon:
    """A running ``cowcloopd fuse``; ``disk`` is the file that it shows."""

    def __init__(
        self,
        folder: Path,
        *parameters: str,
        options: tuple[str, ...] = (),
        supervised: bool = False,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.disk = folder / "disk"
        self.socket = folder.with_name(f"{folder.name}.sock")
        reader, events = os.pipe()
        life, self._life = os.pipe()
        words = [*options, f"events={events}", f"lifeline={life}", f"control={self.socket}"]
        self.process = subprocess.Popen(
            [
                daemon_path(),
                *(["supervise"] if supervised else []),
                "fuse",
                folder,
                *words,
                *parameters,
            ],
            stderr=subprocess.PIPE,
            pass_fds=(events, life),
            text=True,
        )
        os.close(events)
        os.close(life)
        self._events = open(reader)  # noqa: SIM115 - closed by end()
        self.told: list[dict[str, Any]] = []
        self.read_until("ready")

    def read_until(self, *names: str) -> dict[str, Any]:
        """The next event of one of these names; the last of all where none comes."""
        for line in self._events:
            self.told.append(json.loads(line))
            if self.told[-1]["event"] in names:
                break
        return self.told[-1] if self.told else {}

    def ask(self, command: str, **fields: object) -> dict[str, Any]:
        """One request on the control channel."""
        return control.request(self.socket, command, timeout=PATIENCE, **fields)

    @property
    def ready(self) -> bool:
        """Whether it has said so."""
        return any(event["event"] == "ready" for event in self.told)

    def server(self) -> int | None:
        """The process that answers, where a supervisor started it; None while there is none."""
        try:
            return int(self.ask("status")["pid"])
        except ControlError:
            return None

    def kill_server(self, *, by_its_supervisor: bool = False) -> None:
        """As a crash would, under a supervisor; returns when another server answers."""
        wait_until(lambda: self.server() is not None, "the server")
        dead = self.server()
        assert dead is not None
        if by_its_supervisor:
            self.process.send_signal(signal.SIGUSR1)
        else:
            os.kill(dead, signal.SIGKILL)
        wait_until(lambda: self.server() not in (None, dead), "another server")

    def kill(self) -> None:
        """As a crash would: what it had mounted stays, dead."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        servers = children.read_text().split() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait(PATIENCE)
        for server in servers:
            os.kill(int(server), signal.SIGKILL)
        self._clean()
        self.socket.unlink(missing_ok=True)

    def cut(self) -> None:
        """The end of the process that started it."""
        os.close(self._life)
        self._life = -1

    def end(self, how: signal.Signals | None = signal.SIGTERM) -> int:
        """Its exit code, once it has ended; the rest of the events is in ``told``."""
        if how is not None:
            self.process.send_signal(how)
        code = self.process.wait(PATIENCE)
        self._clean()
        return code

    def errors(self) -> list[str]:
        """The lines of the errors that it has told."""
        return [event["text"] for event in self.told if event["event"] == "error"]

    def _clean(self) -> None:
        self.read_until()
        self._events.close()
        if self.process.stderr is not None:
            self.process.stderr.close()
        if self._life >= 0:
            self.cut()
        if os.path.ismount(self.folder) or not _lives(self.folder):
            run("umount", "-l", self.folder, expect=None)


def _lives(folder: Path) -> bool:
    try:
        os.stat(folder)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def daemon(
    folder: Path, *parameters: str, options: tuple[str, ...] = (), supervised: bool = False
) -> Iterator[Daemon]:
    """A cowcloopd that has to be ready, and to end well."""
    running = Daemon(folder, *parameters, options=options, supervised=supervised)
    try:
        assert running.ready, running.told
        yield running
    except BaseException:
        running.kill()
        raise
    assert running.end() == 0, running.told
    assert running.errors() == []


@contextlib.contextmanager
def on_loop(disk: Path, place: Path) -> Iterator[Path]:
    """The ext2 of the file, mounted from a loop device with direct I/O."""
    place.mkdir(exist_ok=True)
    done = run("losetup", "--find", "--show", "--direct-io=on", disk)
    device = done.stdout.decode().strip()
    try:
        run("mount", "-t", "ext2", "-o", "noatime", device, place)
        try:
            yield place
        finally:
            run("umount", "-l", place)
    finally:
        wait_until(lambda: run("losetup", "-d", device, expect=None).returncode == 0, "losetup")
        backing = Path("/sys/block", Path(device).name, "loop/backing_file")
        wait_until(lambda: not _is_of(backing, disk), "the end of the loop device")


def _is_of(backing: Path, disk: Path) -> bool:
    try:
        return backing.read_text().startswith(str(disk))
    except OSError:
        return False
