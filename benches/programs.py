"""Other programs, run and timed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cowcloop.programs import MissingProgram, find_program

from benches.model import UnavailableError

# The command as users run it.
COWCLOOP = Path(sys.executable).with_name("cowcloop")

# Debian's packages of the programs that are run here.
_PACKAGES = {
    "create_compressed_fs": "cloop-utils",
    "curl": "curl",
    "extract_compressed_fs": "cloop-utils",
    "fio": "fio",
    "httpdirfs": "httpdirfs",
    "mke2fs": "e2fsprogs",
    "mkfs.erofs": "erofs-utils",
    "mksquashfs": "squashfs-tools",
    "nbdcopy": "libnbd-bin",
    "nbdfuse": "libnbd-bin",
    "nbdkit": "nbdkit",
    "nginx": "nginx-light",
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "squashfuse": "squashfuse",
}


def program(name: str) -> str:
    """The path of a program that a distribution's package has."""
    try:
        return find_program(name, _PACKAGES[name])
    except MissingProgram as error:
        raise UnavailableError(str(error)) from None


def run(command: Sequence[str | Path]) -> str:
    """Run to the end, and return the standard output; an error shows what the program said."""
    words = [str(word) for word in command]
    if words[0] in _PACKAGES:
        words[0] = program(words[0])
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}: {' / '.join(said)}")
    return done.stdout


def seconds(command: Sequence[str | Path]) -> float:
    """How long a program takes."""
    begin = time.perf_counter()
    run(command)
    return time.perf_counter() - begin


def fio(*options: str, direction: str = "read") -> float:
    """The rate that fio found, in requests per second."""
    text = run(["fio", "--name=bench", "--output-format=json", "--group_reporting=1", *options])
    report: dict[str, Any] = json.loads(text[text.index("{") :])
    job = report["jobs"][0]
    if job["error"]:
        raise RuntimeError(f"fio {' '.join(options)}: error {job['error']}")
    return float(job[direction]["iops"])
