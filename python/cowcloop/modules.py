"""Modules of the kernel, loaded where that is allowed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cowcloop.programs import MissingProgram, find_program


def load(module: str, sign: Path) -> bool:
    """Load a module, if this user may; whether the file is there that shows it."""
    if os.geteuid() != 0:
        return False
    try:
        modprobe = find_program("modprobe", "kmod")
    except MissingProgram:
        return False
    subprocess.run(
        [modprobe, "-q", module], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return sign.exists()
