"""What scenarios have in common: it lies beside them in the guest, and needs Python alone."""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import random
import struct
import subprocess
import threading
import time
from collections.abc import Callable

PATIENCE = 60.0
#: Requests between two kills of a server.
SOME = 25

_SECTOR = 512
_DISCARD, _ZERO = 0x1277, 0x127F


def tell(name: str, value: object) -> None:
    """One result, for the test."""
    print(json.dumps({name: value}), flush=True)


def sh(command: str, name: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command of root's outside of any session; its code and output are told with a name."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    if name is not None or done.returncode:
        tell(name or f"failed: {command}", [done.returncode, done.stdout, done.stderr])
    return done


def wait_until(true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait for a condition; it is a failure when it does not come about."""
    end = time.monotonic() + patience
    while not true():
        if time.monotonic() > end:
            tell(f"failed: {what}", f"not so within {patience:.0f} seconds")
            return
        time.sleep(0.05)


def wait_for(path: str) -> None:
    """Wait until a file is there."""
    wait_until(lambda: os.path.exists(path), path)


def digest(path: str) -> str:
    """Of all that is in a file or device."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class Daemon:
    """A running cowcloopd."""

    PROGRAM = "/payload/python/cowcloop/lib/cowcloopd"

    def __init__(self, *words: str, user: str | None = None) -> None:
        read, write = os.pipe()
        command = [self.PROGRAM, *words, f"events={write}"]
        self.process = subprocess.Popen(
            command, pass_fds=[write], stdin=subprocess.DEVNULL, user=user
        )
        os.close(write)
        self._events = os.fdopen(read)
        self.device = self._ready()

    def _ready(self) -> str:
        for line in self._events:
            event = json.loads(line)
            if event["event"] == "ready":
                return str(event["device"])
            tell(f"failed: {event['event']}", line)
        tell("failed: cowcloopd", f"ended with {self.process.wait()}")
        raise SystemExit(1)

    def kill(self) -> None:
        """End it as no program can help."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """End it in order; its exit code."""
        self.process.terminate()
        return self.process.wait()


class Traffic(threading.Thread):
    """Random requests, one after the other, beside an array that holds what the device must."""

    def __init__(self, device: str, content: bytearray, seed: int) -> None:
        super().__init__(daemon=True)
        self.content = content
        self.done = 0
        self.problem: str | None = None
        self.stopped = False
        self._random = random.Random(seed)
        # Past the cache of the kernel, so that each request is one of the device's.
        self._device = os.open(device, os.O_RDWR | os.O_DIRECT)
        self._buffer = mmap.mmap(-1, 1 << 18)

    def run(self) -> None:
        try:
            while not self.stopped and self.problem is None:
                self._step()
                self.done += 1
        except OSError as error:
            self.problem = f"request {self.done}: {error}"

    def goes_on(self, look_after: Callable[[], object]) -> bool:
        """Whether some more requests are answered, or one has failed, within the patience."""
        seen, end = self.done, time.monotonic() + PATIENCE
        while self.problem is None and self.done <= seen + SOME:
            look_after()
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def end(self) -> str | None:
        """No more requests; what went wrong."""
        self.stopped = True
        self.join()
        # The end of a user's device waits for the last program that has it open.
        os.close(self._device)
        return self.problem

    def _step(self) -> None:
        kind = self._random.choice(("read", "read", "write", "write", "write", "zero", "discard"))
        unit = 4096 if kind == "discard" else _SECTOR
        length = self._random.choice((1, 2, 7, 8, 64)) * unit
        length = min(length, len(self._buffer))
        at = self._random.randrange((len(self.content) - length) // unit) * unit
        view = memoryview(self._buffer)[:length]
        if kind == "read":
            got = os.preadv(self._device, [view], at)
            if got != length or view != self.content[at : at + length]:
                self.problem = f"request {self.done}: wrong data in {length} bytes at {at}"
            return
        data = self._random.randbytes(length) if kind == "write" else bytes(length)
        if kind == "write":
            view[:] = data
            os.pwritev(self._device, [view], at)
        else:
            code = _ZERO if kind == "zero" else _DISCARD
            fcntl.ioctl(self._device, code, struct.pack("QQ", at, length))
        self.content[at : at + length] = data
