"""The emulated machine: qemu, which is unpacked and not installed.

A qemu of the distribution may be of another version than the qemu-utils beside it, and then the
one cannot be installed without the other being removed.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from support.guest.kernel import kernel
from support.guest.packages import SUITE, cache, call, fetch, unpack
from support.images import once

#: Memory of the machine, unless a test wants another amount.
MEMORY_MIB = 1024

#: What a kernel has to be told.
ON_THE_CONSOLE = "console=ttyS0 panic=-1 quiet no_timer_check"
_NO_ROM = "virtio-net-pci,romfile="
_NETWORK = ("-netdev", "user,id=net", "-device", f"{_NO_ROM},netdev=net")


@dataclass(frozen=True)
class Drive:
    """A virtio disk: the first is /dev/vda. What is written to a `scratch` one is forgotten."""

    image: Path
    scratch: bool = True
    #: It is a CD, in a drive of SCSI's: the first is /dev/sr0.
    cd: bool = False

    def options(self, number: int) -> list[str]:
        """The emulator's."""
        place = f"file={self.image},format=raw"
        if self.cd:
            drive = f"{place},if=none,media=cdrom,id=cd{number}"
            return ["-drive", drive, "-device", f"scsi-cd,drive=cd{number}"]
        temporary = "on" if self.scratch else "off"
        return ["-drive", f"{place},if=virtio,snapshot={temporary}"]


@dataclass(frozen=True)
class Machine:
    """What a machine has said on its two serial ports."""

    console: str
    results: str


class Running:
    """A machine that runs."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def said(self) -> Machine:
        """What it has said so far."""
        said = [""] * 2
        for number, name in enumerate(("console", "results")):
            with contextlib.suppress(FileNotFoundError):
                text = (self._folder / name).read_text(errors="replace")
                said[number] = text.replace("\r\n", "\n")
        return Machine(*said)

    def wait_for(self, words: str, timeout: float) -> None:
        """Wait until the console or the results have these words."""
        end = time.monotonic() + timeout
        while True:
            said = self.said()
            if words in said.console or words in said.results:
                return
            if self._process.poll() is not None:
                self.fail(f"it has ended without saying {words!r}")
            if time.monotonic() > end:
                self.fail(f"it has not said {words!r} after {timeout:.0f} seconds")
            time.sleep(0.1)

    def wait(self, timeout: float) -> Machine:
        """Wait until it switches itself off or reboots; what it has said."""
        try:
            _, errors = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.fail(f"it was still running after {timeout:.0f} seconds")
        if self._process.returncode:
            self.fail(errors)
        return self.said()

    def kill(self) -> None:
        """Cut its power."""
        self._process.kill()
        self._process.wait()

    def fail(self, problem: str) -> NoReturn:
        """End the test, with what the machine has said last."""
        said = self.said()
        text = f"the guest: {problem}\n{said.results[-2000:]}\n{said.console[-4000:]}"
        pytest.fail(text, pytrace=False)


@contextlib.contextmanager
def start(
    initramfs: Path | None,
    *,
    drives: Sequence[Drive] = (),
    append: str = "",
    memory: int = MEMORY_MIB,
    network: bool | str = False,
    uefi: bool = False,
) -> Iterator[Running]:
    """A machine that runs, and has no power any more after the block.

    Without an initramfs its firmware, a BIOS or UEFI, looks for a boot loader on the drives.
    The kernel's console is ttyS0; what the guest writes to ttyS1 comes back as the results. With
    a `network` it reaches this machine as 10.0.2.2; with the name of a tap device it is beside
    that, and its firmware looks for a boot loader there.
    """
    with tempfile.TemporaryDirectory(prefix="guest-") as folder:
        command = [
            *_emulator(),
            *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory)),
            *("-display", "none", "-nodefaults", "-no-reboot"),
            *_network(network, uefi),
            *("-chardev", f"file,id=c,path={folder}/console", "-serial", "chardev:c"),
            *("-chardev", f"file,id=r,path={folder}/results", "-serial", "chardev:r"),
        ]
        if initramfs is not None:
            command += ["-kernel", str(kernel().image), "-initrd", str(initramfs)]
            command += ["-append", f"{ON_THE_CONSOLE} {append}"]
        if uefi:
            command += ["-bios", str(once(cache() / "ovmf", _make_ovmf))]
        if any(drive.cd for drive in drives):
            command += ["-device", "virtio-scsi-pci"]
        for number, drive in enumerate(drives):
            command += drive.options(number)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        with process:
            try:
                yield Running(process, Path(folder))
            finally:
                process.kill()


def boot(
    initramfs: Path | None,
    *,
    drives: Sequence[Drive] = (),
    append: str = "",
    timeout: float = 120,
    memory: int = MEMORY_MIB,
    network: bool | str = False,
    uefi: bool = False,
) -> Machine:
    """Run a machine until it switches itself off or reboots, or the test fails after `timeout`."""
    machine = start(
        initramfs, drives=drives, append=append, memory=memory, network=network, uefi=uefi
    )
    with machine as running:
        return running.wait(timeout)


def _network(network: bool | str, uefi: bool) -> Sequence[str]:
    if not isinstance(network, str):
        return _NETWORK if network else ("-nic", "none")
    tap = f"tap,id=net,ifname={network},script=no,downscript=no"
    # A BIOS boots by the program in the card; UEFI has a driver, and would try the other card.
    card = f"{_NO_ROM if uefi else 'virtio-net-pci'},netdev=net,bootindex=0"
    # The kernel finds a card first that leads nowhere.
    other = ("-netdev", "hubport,id=other,hubid=0", "-device", f"{_NO_ROM},netdev=other")
    return (*other, "-netdev", tap, "-device", card)


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


def _make_ovmf(part: Path) -> None:
    folder = part.with_name("ovmf-package")
    unpack(fetch(SUITE, ["ovmf"], alone=True), folder)
    part.write_bytes((folder / "usr/share/ovmf/OVMF.fd").read_bytes())
    call(["rm", "-rf", folder])
