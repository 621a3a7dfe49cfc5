"""What scenarios have in common: it lies beside them in the guest, and needs Python alone."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable

PATIENCE = 60.0


def tell(name: str, value: object) -> None:
    """One result, for the test."""
    print(json.dumps({name: value}), flush=True)


def sh(command: str, name: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command of root's outside of any session; its code and output are told with a name."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    if name is not None or done.returncode:
        tell(name or f"failed: {command}", [done.returncode, done.stdout, done.stderr])
    return done


def wait_until(true: Callable[[], object], what: str) -> None:
    """Wait for a condition; it is a failure when it does not come about."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            tell(f"failed: {what}", f"not so within {PATIENCE:.0f} seconds")
            return
        time.sleep(0.05)


def wait_for(path: str) -> None:
    """Wait until a file is there."""
    wait_until(lambda: os.path.exists(path), path)


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
