"""The emulated machine: qemu, which is unpacked and not installed.

A qemu of the distribution may be of another version than the qemu-utils beside it, and then the
one cannot be installed without the other being removed.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.guest.kernel import kernel
from support.guest.packages import SUITE, cache, fetch, unpack
from support.images import once

#: Memory of the machine, unless a test wants another amount.
MEMORY_MIB = 1024


@dataclass(frozen=True)
class Drive:
    """A virtio disk: the first is /dev/vda. What is written to a `scratch` one is forgotten."""

    image: Path
    scratch: bool = True


@dataclass(frozen=True)
class Machine:
    """What a machine that has switched itself off has said on its two serial ports."""

    console: str
    results: str


def boot(
    initramfs: Path,
    *,
    drives: Sequence[Drive] = (),
    append: str = "",
    timeout: float = 120,
    memory: int = MEMORY_MIB,
) -> Machine:
    """Run a machine until it switches itself off or reboots, or the test fails after `timeout`.

    The kernel's console is ttyS0; what the guest writes to ttyS1 comes back as the results.
    """
    with tempfile.TemporaryDirectory(prefix="guest-") as folder:
        console, results = Path(folder, "console"), Path(folder, "results")
        command = [
            *_emulator(),
            *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory)),
            *("-display", "none", "-nodefaults", "-nic", "none", "-no-reboot"),
            *("-chardev", f"file,id=c,path={console}", "-serial", "chardev:c"),
            *("-chardev", f"file,id=r,path={results}", "-serial", "chardev:r"),
            *("-kernel", str(kernel().image), "-initrd", str(initramfs)),
            *("-append", f"console=ttyS0 panic=-1 quiet no_timer_check {append}"),
        ]
        for drive in drives:
            temporary = "on" if drive.scratch else "off"
            options = f"file={drive.image},format=raw,if=virtio,snapshot={temporary}"
            command += ["-drive", options]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                cwd=folder,
            )
            problem = done.stderr if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"it was still running after {timeout:.0f} seconds"
        said = [""] * 2
        for number, path in enumerate((console, results)):
            with contextlib.suppress(FileNotFoundError):
                said[number] = path.read_text(errors="replace").replace("\r\n", "\n")
    if problem:
        pytest.fail(f"the guest: {problem}\n{said[1][-2000:]}\n{said[0][-4000:]}", pytrace=False)
    return Machine(*said)


def _emulator() -> list[str]:
    root = once(cache() / "qemu", _make)
    library = root / "usr/lib/x86_64-linux-gnu"
    command = [str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", str(library)]
    command.append(str(root / "usr/bin/qemu-system-x86_64"))
    for name in ("qemu", "seabios"):
        command += ["-L", str(root / "usr/share" / name)]
    return command


def _make(part: Path) -> None:
    part.mkdir(parents=True, exist_ok=True)
    unpack(fetch(SUITE, ["qemu-system-x86"]), part)
