"""Builds the kernels, boots them, and fetches what the guests measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benches import debian
from benches.material import Material, cache_folder, offsets
from benches.model import UnavailableError

_HERE = Path(__file__).parent
# The one that has ublk as we need it; for the one that has cloop see build.sh.
_NEWER = "linux-source-6.12"
_MEMORY = "mem=3G"
# Seconds for one round of all contenders; after them a hanging guest is ended.
_SECONDS_A_ROUND = 600


def measure(material: Material, runs: int) -> list[dict[str, Any]]:
    """The guests' figures: one item for each program and work."""
    cache = cache_folder() / "kernel"
    print("the kernel lab: building what is missing takes some minutes", file=sys.stderr)
    build = [str(_HERE / "build.sh"), str(cache)]
    unavailable = ""
    try:
        build.append(str(debian.unpacked(_NEWER, alone=True) / f"usr/src/{_NEWER}.tar.xz"))
    except UnavailableError as error:
        unavailable = str(error)
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    if unavailable:
        names = {"work": "dd bs=1M", "contender": "cowcloop, /dev/ublkb0"}
        rows: list[dict[str, Any]] = [{**names, "figures": [], "unavailable": unavailable}]
    else:
        rows = _measure(cache / "linux-ublk", material, runs, {})
    modules = {
        "as it is": str(cache / "cloop.ko"),
        "mended": str(cache / "cloop-mended.ko"),
    }
    return rows + _measure(cache / "linux", material, runs, modules)


def _measure(
    kernel: Path, material: Material, runs: int, modules: dict[str, str]
) -> list[dict[str, Any]]:
    """Those of one guest."""
    with tempfile.TemporaryDirectory(prefix="cowcloop-lab-", dir="/tmp") as name:
        folder = Path(name)
        job = _write_job(folder, material, modules, runs)
        _boot(kernel, folder, job, runs)
        result = folder / "result.json"
        if not result.exists():
            end = (folder / "console").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the kernel lab ended without a result:\n{end}")
        rows: list[dict[str, Any]] = json.loads(result.read_text())
        return rows


def _write_job(folder: Path, material: Material, modules: dict[str, str], runs: int) -> Path:
    job = folder / "job.json"
    job.write_text(
        json.dumps(
            {
                "image": str(material.cloop),
                "raw": str(material.raw),
                "squashfs": str(material.squashfs),
                "size": material.size,
                "modules": modules,
                "offsets": offsets(material),
                "cowcloop": [sys.executable, "-m", "cowcloop"],
                "runs": runs,
                "result": str(folder / "result.json"),
            }
        )
    )
    return job


def _boot(kernel: Path, folder: Path, job: Path, runs: int) -> None:
    """One core for the guest: spread over two, its system calls cost several times more."""
    core = max(os.sched_getaffinity(0))
    command = [
        *("taskset", "-c", str(core), str(kernel), _MEMORY),
        *("root=none", "rootfstype=hostfs", "rootflags=/", "rw", "quiet"),
        *("con=null", "con0=fd:0,fd:1", f"uml_dir={folder}", f"umid={folder.name}"),
        f"init={_HERE / 'guest.py'}",
        f"COWCLOOP_LAB={job}",
    ]
    with (folder / "console").open("wb") as console:
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                timeout=_SECONDS_A_ROUND * (runs + 1),
                check=False,
            )
        except subprocess.TimeoutExpired:
            print("the kernel lab took too long and was ended", file=sys.stderr)
