"""A small root: busybox and a script, in an image."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from support.guest.initramfs import busybox
from support.guest.life import PATIENCE
from support.guest.machine import Drive, Machine, boot
from support.programs import cowcloop, program, run

MEMORY_MIB = 224
_NOISE = 12
_FOLDERS = ("bin", "dev", "etc", "mnt", "noise", "proc", "root", "run", "sbin", "sys", "tmp")

_BEGIN = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
exec </dev/console >/dev/console 2>&1
[ -e /proc/mounts ] || mount -t proc proc /proc
tell() { echo "$*" >/dev/ttyS1; }
"""

# The way to the end where there is no systemd.
_END = """
tell end
exec /run/initramfs/leave reboot
"""


def make_root(folder: Path, script: str, size: str = "24M") -> Path:
    """A compressed ext2 file system whose /sbin/init runs a script, and then reboots."""
    root = folder / "root"
    for name in _FOLDERS:
        (root / name).mkdir(parents=True)
    shutil.copy(busybox(), root / "bin/busybox")
    (root / "sbin/init").write_text(_BEGIN + script + _END)
    for path in ("bin/busybox", "sbin/init"):
        (root / path).chmod(0o755)
    # systemd in an initramfs wants it in a root.
    (root / "etc/os-release").write_text("ID=small\n")
    # What is not needed to boot.
    noise = random.Random(5)
    for number in range(_NOISE):
        (root / f"noise/{number:02}").write_bytes(noise.randbytes(512 << 10))
    raw, image = folder / "root.img", folder / "root.cloop"
    mke2fs = program("mke2fs", "e2fsprogs")
    run(mke2fs, "-q", "-F", "-t", "ext2", "-E", "root_owner=0:0", "-d", root, raw, size)
    cowcloop("create", "--quiet", raw, image)
    return image


class Lives:
    """A machine that is started again and again."""

    def __init__(
        self,
        initramfs: Path,
        root: str,
        *drives: Drive,
        network: bool = False,
        memory: int = MEMORY_MIB,
    ) -> None:
        self.initramfs = initramfs
        self.memory = memory
        self.append = f"root=cowcloop:{root} rw"
        self.drives = drives
        self.network = network

    def live(self) -> Machine:
        """From the start to the reboot."""
        machine = boot(
            self.initramfs,
            drives=self.drives,
            append=self.append,
            memory=self.memory,
            network=self.network,
            timeout=PATIENCE,
        )
        assert machine.results.endswith("end\n"), f"{machine.results}\n{machine.console}"
        return machine


def cowfile_of(data: Path, folder: Path) -> Path:
    """The cowfile on a disk, both of which the machine has to have closed."""
    head = run(program("dumpe2fs", "e2fsprogs"), "-h", data).stdout.decode()
    assert "needs_recovery" not in head
    cowfile = folder / "cowcloop.cow"
    run(program("debugfs", "e2fsprogs"), "-R", f"dump /cowcloop.cow {cowfile}", data)
    assert json.loads(cowcloop("info", cowfile, "--json").stdout)["state"] == "clean"
    return cowfile


def check(image: Path, cowfile: Path, folder: Path) -> None:
    """The file system of the device is without a fault."""
    raw = folder / "device.raw"
    cowcloop("extract", image, cowfile, raw)
    run(program("e2fsck", "e2fsprogs"), "-fn", raw)
