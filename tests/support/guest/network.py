"""A network of its own on this machine: a card, and one for an emulated machine beside it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.programs import missing, program, run
from support.server import wait_until

_CLONE_NEWNET = 0x40000000
#: The emulated machine's end.
TAP = "tap0"
#: As a line of /proc/net/udp names the port of DHCP.
_DHCP_PORT = ":0043 "


@contextlib.contextmanager
def network(card: str, address: str) -> Iterator[None]:
    """This thread, and what it starts, are in a network without other machines.

    Its `card` has the `address`, and what is sent there reaches the emulated machine at `TAP`.
    """
    ip = program("ip", "iproute2")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET):
            missing(f"no network of its own: {os.strerror(ctypes.get_errno())}")
        try:
            for words in (
                "link set lo up",
                f"link add {card} type bridge",
                f"address add {address} dev {card}",
                f"link set {card} up",
                f"tuntap add {TAP} mode tap",
                f"link set {TAP} up master {card}",
            ):
                done = run(ip, *words.split(), expect=None)
                if done.returncode:
                    missing(f"ip {words}: {done.stderr.decode().strip()}")
            yield
        finally:
            # Nothing that was made here is left when its last process has gone.
            if libc.setns(before, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "this thread cannot leave its network")
    finally:
        os.close(before)


@contextlib.contextmanager
def dnsmasq(settings: str, folder: Path) -> Iterator[Path]:
    """dnsmasq with the settings of a file, and with nothing of this machine's own; its log."""
    file, log = folder / "dnsmasq.conf", folder / "dnsmasq.log"
    file.write_text(settings)
    words = ("--keep-in-foreground", "--user=root", "--leasefile-ro", "--pid-file=")
    command = [program("dnsmasq", "dnsmasq-base"), f"--conf-file={file}", *words]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--log-facility=-"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:

        def listens() -> bool:
            assert process.poll() is None, log.read_text()
            return _DHCP_PORT in Path("/proc/thread-self/net/udp").read_text()

        wait_until(listens, "dnsmasq")
        yield log
    finally:
        process.terminate()
        process.wait()


def replaced(text: str, names: Mapping[str, Path]) -> str:
    """Names in a text, replaced by paths of the test's."""
    for name, path in names.items():
        assert name in text, f"{name} is not in {text!r}"
        text = text.replace(name, str(path))
    return text
