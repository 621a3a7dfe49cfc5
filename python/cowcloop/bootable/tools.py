"""The programs that do the work: how they are run, and what they say when they fail."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Sequence

from cowcloop.errors import CowcloopError

# What xorriso and others say besides, and what a last line is not worth.
_CAUSE = re.compile(
    r"error|fail|fatal|cannot|can't|no such|not exist|no space|not permitted|denied", re.IGNORECASE
)


class ToolError(CowcloopError):
    """A program could not do its part."""


def run(subject: str, command: Sequence[str], work: str) -> str:
    """Run a program with `work` for its temporary files; what it prints.

    It is ended, with all that it has started, when this is interrupted. ToolError says what it
    was to make.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TMPDIR": work},
    )
    try:
        output, said = child.communicate()
    except BaseException:
        # It may have ended just now, with all that it had started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        # Its children have the pipes, too: this is the end of all of them.
        child.communicate()
        raise
    if child.returncode:
        name = os.path.basename(command[0])
        reason = _reason(said.decode(errors="replace")) or f"exit status {child.returncode}"
        raise ToolError(f"{subject}: {name}: {reason}")
    return output.decode(errors="surrogateescape")


def _reason(said: str) -> str:
    """The first line that names a cause, or the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if _CAUSE.search(line)), lines[-1] if lines else "")
