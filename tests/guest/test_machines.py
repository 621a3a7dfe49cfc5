"""A machine takes the disks of the page about virtual machines."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from support import pages
from support.guest import Drive, Initramfs, boot
from support.programs import ROOT, cowcloop, run
from support.server import serving

_PAGE = ROOT / "docs/howto/machines.md"
_SIZE = 4 << 20

_SCRIPT = """
exec >/dev/ttyS1
read -r word </dev/vda
echo "read $word"
dd if=/dev/urandom of=/dev/vda bs=1M seek=1 count=2 conv=fsync,notrunc 2>/dev/null
blkdiscard -o 1048576 -l 2097152 /dev/vda && echo discarded
echo written by the machine | dd of=/dev/vda conv=fsync,notrunc 2>/dev/null
mkdir /seed
mount -t iso9660 -o ro /dev/vdb /seed && cat /seed/meta-data /seed/user-data
dd if=/dev/vdb bs=1 skip=32808 count=6 2>/dev/null
"""


@dataclass(frozen=True)
class _Words(Drive):
    """A disk as the page gives it to qemu."""

    words: str = ""

    def options(self, number: int) -> list[str]:
        return ["-drive", self.words]


def _drive(*words: str) -> str:
    """The one option of the page's that has these words."""
    options = re.finditer(r"-drive ('[^']*'|[^\s`]*)", _PAGE.read_text())
    found = [option[1].strip("'") for option in options]
    (drive,) = [text for text in found if all(word in text for word in words)]
    return drive


def _make_seed(folder: Path) -> None:
    """The disc, by the commands of the page."""
    folder.mkdir()
    commands = [step.command for step in pages.read(_PAGE).steps() if "seed" in step.command]
    run("bash", "-ec", "\n".join(line for line in commands if "cowcloop" not in line), cwd=folder)


def test_qemu_takes_the_disk_and_the_seed(tmp_path: Path, runtime: Path) -> None:
    raw, image, cow = tmp_path / "disk", tmp_path / "disk.cloop", tmp_path / "one.cow"
    raw.write_bytes(b"hello\n" + os.urandom(_SIZE - 6))
    cowcloop("create", "--quiet", raw, image)
    _make_seed(tmp_path / "made")
    seed = _drive("seed.iso").replace("seed.iso", str(tmp_path / "made/seed.iso"))
    initramfs = Initramfs().save(tmp_path / "ird", _SCRIPT, ("virtio_pci", "virtio_blk", "isofs"))
    # A socket's path is limited to 107 bytes.
    socket = runtime / "one.sock"
    with serving(image, cow, "-U", socket):
        disk = _drive("/run/one.sock").replace("/run/one.sock", str(socket))
        drives = [_Words(raw, words=words) for words in (disk, seed)]
        machine = boot(initramfs, drives=drives, memory=256, timeout=600)
    said = machine.results.splitlines()
    assert said[:2] == ["read hello", "discarded"], machine
    assert said[2:] == ["instance-id: one", "#cloud-config", "hostname: one", "cidata"]
    device = cowcloop("extract", image, cow, "-").stdout
    assert device.startswith(b"written by the machine\n")
    assert device[1 << 20 : 3 << 20] == bytes(2 << 20)
    # The cowfile has no room for what was discarded.
    assert cow.stat().st_blocks * 512 < 1 << 20
