"""The machine that the figures are from: what it is, and how busy it was."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from cowcloop import __version__

_VERSIONS = {
    "nbdkit": ["nbdkit", "--version"],
    "nbdcopy": ["nbdcopy", "--version"],
    "qemu-nbd": ["qemu-nbd", "--version"],
    "fio": ["fio", "--version"],
    "mksquashfs": ["mksquashfs", "-version"],
    "mkfs.erofs": ["mkfs.erofs", "--version"],
}


class ProcessorTime:
    """The share of processor time stolen by the hypervisor since this was made."""

    def __init__(self) -> None:
        """Begin now."""
        self._begin = self._read()

    @staticmethod
    def _read() -> tuple[int, int]:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        ticks = [int(field) for field in fields[:8]]
        return sum(ticks), ticks[7]

    def stolen_percent(self) -> float:
        """Percent of all processors' time."""
        total, steal = (now - then for now, then in zip(self._read(), self._begin))
        return 100 * steal / total if total else 0.0


def load() -> float:
    """Processes that wanted to run, over the last minute."""
    return os.getloadavg()[0]


def describe() -> dict[str, object]:
    """Processor, memory, kernel, and the versions of all programs that take part."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return {
        "processor": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "versions": {"cowcloop": __version__, **_program_versions()},
    }


def _program_versions() -> dict[str, str]:
    versions = {}
    for name, command in _VERSIONS.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            continue
        found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
        if found:
            versions[name] = found.group()
    versions["cloop-utils"] = _debian_version("cloop-utils")
    versions["matplotlib"] = metadata.version("matplotlib")
    return versions


def _debian_version(package: str) -> str:
    try:
        command = ["dpkg-query", "-W", "-f", "${Version}", package]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
