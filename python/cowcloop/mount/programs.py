"""The system's programs that mounting runs, and their messages."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Done:
    """The result of a program that has ended: its exit code and its output."""

    program: str
    code: int
    output: str
    errors: str

    def reason(self, place: str) -> str:
        """The first line of its output, without the names of program and place before it."""
        text = self.errors.strip()
        for prefix in (f"{self.program}: ", f"{place}: "):
            text = text.removeprefix(prefix)
        return text.splitlines()[0].rstrip(".") if text else f"exit status {self.code}"


def run(*command: str) -> Done:
    """Run a program to its end, in English, out of reach of a Ctrl-C at the terminal."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
        start_new_session=True,
    )
    name = Path(command[0]).name
    return Done(name, done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))
