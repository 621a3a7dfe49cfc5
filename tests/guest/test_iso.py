"""The ISO image that `cowcloop live` makes of a Debian's root directory: BIOS and UEFI boot it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import images
from support.bootable import require_grub
from support.guest import Drive, Machine, boot
from support.guest.life import PATIENCE
from support.guest.live import live_tree
from support.guest.machine import ON_THE_CONSOLE
from support.programs import cowcloop, program

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(2 * PATIENCE),
    pytest.mark.usefixtures("root"),
]

_MEMORY_MIB = 256

INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin
[ -e /proc/mounts ] || mount -t proc proc /proc
exec </dev/console >/dev/ttyS1 2>/dev/console
sed -n 's|^\\([^ ]*\\) / \\([^ ]*\\) .*|root \\1 \\2|p' /proc/mounts
echo written >/new.txt && sync && cat /new.txt
exec /run/initramfs/leave reboot
"""


@pytest.fixture(scope="module")
def iso(shared: Path) -> Path:
    """Made once; the initramfs in it is one that the tree's own tools have made."""
    require_grub()
    program("mkinitramfs", "initramfs-tools-core")

    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        words = ("--level", "1", "--free", "64M", "--append", ON_THE_CONSOLE)
        with live_tree(INIT) as tree:
            before = {path.name for path in (tree / "tmp").iterdir()}
            cowcloop("live", tree, folder / "live.iso", *words)
            assert {path.name for path in (tree / "tmp").iterdir()} == before

    return images.once(shared / "iso", make) / "live.iso"


def _check(machine: Machine) -> None:
    # UEFI writes to all serial ports, and so does its GRUB.
    assert machine.results.endswith("root /dev/ublkb0 ext2\nwritten\n"), machine.console


def test_bios_boots_it_from_a_disc(iso: Path) -> None:
    drive = Drive(iso, cd=True)
    _check(boot(None, drives=[drive], memory=_MEMORY_MIB, timeout=PATIENCE))


def test_uefi_boots_it_from_a_stick(iso: Path) -> None:
    drive = Drive(iso)
    _check(boot(None, drives=[drive], memory=_MEMORY_MIB, timeout=PATIENCE, uefi=True))
