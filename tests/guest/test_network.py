"""Machines without a disk that boot from the network, as the page says."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import pages
from support.guest.kernel import kernel
from support.guest.life import PATIENCE
from support.guest.machine import ON_THE_CONSOLE, Machine, boot, start
from support.guest.network import TAP, dnsmasq, network, replaced
from support.guest.small import MEMORY_MIB, check
from support.programs import ROOT, program, run
from support.server import serving, wait_until

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(2 * PATIENCE),
    pytest.mark.usefixtures("root"),
]

_BLOCKS = pages.read(ROOT / "docs/howto/pxe.md").blocks
_TFTP = "/srv/tftp"
_CARD, _ADDRESS = "eth1", "10.77.0.1/24"
# The address of the second network card.
_COWFILE = "pc-52-54-00-12-34-57.cow"


def _block(language: str, *words: str) -> str:
    """The one block of the page in this language that has all these words."""
    texts = ["\n".join(block.lines) for block in _BLOCKS if block.language == language]
    (found,) = [f"{text}\n" for text in texts if all(word in text for word in words)]
    return found


class Classroom:
    """The server's side of the page, in a folder and a network of the test's own."""

    def __init__(self, folder: Path, initramfs: Path) -> None:
        self.folder = folder
        self.tftp = folder / "tftp"
        shutil.copy(kernel().image, folder / "vmlinuz")
        shutil.copy(initramfs, folder / "initrd.img")

    def put_files(self, loader: str) -> None:
        """The commands of the page that put a boot loader in its place."""
        commands = replaced(_block("sh", loader, "install -m"), {_TFTP: self.tftp})
        run(program("bash", "bash"), "-ec", commands, cwd=self.folder)

    def put_menu(self, name: str, text: str) -> None:
        """A file that names the kernel, which has to speak where the test listens."""
        assert " rw" in text
        (self.tftp / name).write_text(text.replace(" rw", f" rw {ON_THE_CONSOLE}"))

    def settings(self, loader: str) -> str:
        """The settings of dnsmasq's that name a loader."""
        return replaced(_block("ini", loader), {_TFTP: self.tftp})

    def live(self, loader: str, *, uefi: bool = False) -> Machine:
        """One boot of the machine."""
        with dnsmasq(self.settings(loader), self.folder):
            return boot(None, network=TAP, memory=MEMORY_MIB, timeout=PATIENCE, uefi=uefi)

    def live_by_another(self, loader: str, then: str) -> Machine:
        """One boot by a BIOS that is not iPXE's: it is told of no more than a loader."""
        settings = self.settings(then)
        line = f"dhcp-boot=tag:!ipxe,tag:!uefi,{loader}\n"
        assert line in settings
        choices = ("dhcp-match", "dhcp-boot")
        lines = [each for each in settings.splitlines() if not each.startswith(choices)]
        with start(None, network=TAP, memory=MEMORY_MIB) as machine:
            simple = "\n".join([*lines, f"dhcp-boot={loader}\n"])
            with dnsmasq(simple, self.folder) as log:
                sent = f"sent {self.tftp / loader} to"
                wait_until(lambda: sent in log.read_text(), "the loader to be sent", PATIENCE)
            # What was loaded asks again, and says what it is.
            with dnsmasq(settings, self.folder):
                return machine.wait(PATIENCE)


@pytest.fixture
def classroom(initramfs: Path, small_root: Path, tmp_path: Path) -> Iterator[Classroom]:
    words = shlex.split(_block("sh", "cowcloop serve"))
    assert words[:2] == ["cowcloop", "serve"]
    places = {"root.cloop": str(small_root), "class": str(tmp_path / "class")}
    with network(_CARD, _ADDRESS), serving(*(places.get(word, word) for word in words[2:])):
        yield Classroom(tmp_path, initramfs)


def test_a_bios_by_pxelinux_and_by_ipxe(classroom: Classroom, small_root: Path) -> None:
    classroom.put_files("pxelinux.0")
    classroom.put_menu("pxelinux.cfg/default", _block("syslinux"))
    first = classroom.live("pxelinux.0")
    assert "root /dev/nbd0 ext2" in first.results, first.console
    assert "found \n" in first.results
    shutil.rmtree(classroom.tftp)
    classroom.put_files("snponly.efi")
    classroom.put_menu("boot.ipxe", _block("ipxe"))
    second = classroom.live_by_another("undionly.kpxe", "boot.ipxe")
    assert "found life 1\n" in second.results, second.console
    check(small_root, classroom.folder / "class" / _COWFILE, classroom.folder)


def test_uefi_by_ipxe(classroom: Classroom) -> None:
    classroom.put_files("snponly.efi")
    classroom.put_menu("boot.ipxe", _block("ipxe"))
    # UEFI writes to all serial ports, and so does iPXE.
    assert "found \nend\n" in classroom.live("boot.ipxe", uefi=True).results
    assert (classroom.folder / "class" / _COWFILE).exists()
