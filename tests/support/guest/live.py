"""An initramfs with the project's hook, made by Debian's own tools in a root of their own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from support.guest.kernel import kernel
from support.guest.packages import call
from support.guest.system import becoming_root
from support.guest.tools import call_in, tools_with_cowcloop

_TOOLS = (
    "busybox",
    "ca-certificates",
    "cpio",
    "e2fsprogs",
    "initramfs-tools",
    "kmod",
    "nbd-client",
    "udev",
    "zstd",
)

# The modules of the emulated machine; the hook adds its own.
_MODULES = "virtio_pci\nvirtio_blk\nvirtio_net\nvirtio_scsi\nsr_mod\n"
_SETTINGS = {"MODULES": "list", "BUSYBOX": "y", "COMPRESS": "zstd"}


def make_initramfs(place: Path, **settings: str) -> None:
    """What mkinitramfs makes with the hook; `settings` are those of initramfs.conf."""
    lines = [f"{name}={value}\n" for name, value in {**_SETTINGS, **settings}.items()]
    configuration = {
        "etc/live/modules": _MODULES.encode(),
        "etc/live/initramfs.conf": "".join(lines).encode(),
    }
    make = ("mkinitramfs", "-d", "/etc/live", "-o", "/initramfs", kernel().version)
    with tools_with_cowcloop(_TOOLS, configuration) as root:
        call_in(root, *make)
        take(root / "initramfs", place)


def take(made: Path, place: Path) -> None:
    """What root has made, for the test."""
    call([*becoming_root(), "chmod", "644", made])
    shutil.copy(made, place)


@contextlib.contextmanager
def live_tree(init: str) -> Iterator[Path]:
    """A root directory whose /sbin/init runs a script, with all that makes an initramfs of it."""
    image = kernel().image
    extra = {f"boot/{image.name}": image.read_bytes(), "usr/sbin/init": init.encode()}
    with tools_with_cowcloop(_TOOLS, extra) as root:
        yield root
