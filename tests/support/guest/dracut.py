"""An initramfs with the project's module, made by Debian's dracut in a root of its own."""

from __future__ import annotations

from pathlib import Path

from support.guest.kernel import kernel
from support.guest.live import take
from support.guest.tools import call_in, tools_with_cowcloop

_TOOLS = (
    "busybox",
    "ca-certificates",
    "dracut-core",
    "dracut-network",
    "iproute2",
    "isc-dhcp-client",
    "nbd-client",
    "procps",
    "systemd",
    "systemd-sysv",
    "zstd",
)

_SYSTEMD = "systemd systemd-initrd systemd-networkd dracut-systemd"


def make_initramfs(place: Path, *, systemd: bool) -> None:
    """What dracut makes with the module."""
    omitted = () if systemd else ("--omit", _SYSTEMD)
    make = ("dracut", "--no-hostonly", "--zstd", *omitted, "/initramfs", kernel().version)
    with tools_with_cowcloop(_TOOLS, {}) as root:
        call_in(root, *make, proc=True)
        take(root / "initramfs", place)
