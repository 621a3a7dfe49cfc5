"""Commands that are stopped while they work."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from .programs import PATIENCE, Argument, cowcloop_path, one_line
from .server import wait_until


def stopped_half_way(
    *arguments: Argument, folder: Path, how: signal.Signals = signal.SIGINT
) -> int:
    """Signals cowcloop as soon as it makes a file in ``folder``; its exit code."""
    child = subprocess.Popen(
        [cowcloop_path(), *arguments],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_until(lambda: child.poll() is not None or _makes_a_file(child.pid, folder), "an output")
    os.killpg(child.pid, how)
    stderr = child.communicate(timeout=PATIENCE)[1].decode()
    if child.returncode > 0:
        one_line(stderr, "interrupted" if how == signal.SIGINT else f"interrupted by {how.name}")
    return child.returncode


def _makes_a_file(pid: int, folder: Path) -> bool:
    """Whether the process has a file open there that has no name yet, or a passing one."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = Path(os.readlink(link))
        except FileNotFoundError:
            continue
        passing = target.name.endswith((" (deleted)", ".part"))
        if passing and target.parent == folder.resolve():
            return True
    return False
