"""The kernel's own NBD, and its file system."""

from __future__ import annotations

import re
from pathlib import Path

from cowcloop import registry, server
from cowcloop.modules import load
from cowcloop.mount import kernel
from cowcloop.mount.errors import MountError
from cowcloop.mount.ways.base import KERNEL_PROGRAMS, Attach, Mounting, Way, needs_root
from cowcloop.server import nbd_client
from cowcloop.server.options import ServeOptions


class ByNbd(Way):
    """For root; also what is taken for a device /dev/nbdN that the user names."""

    name = "nbd"
    programs = (("nbdkit", "nbdkit"), ("nbd-client", "nbd-client"), *KERNEL_PROGRAMS)

    def refusal(self) -> str | None:
        """Root alone connects devices."""
        return needs_root(self.name)

    def check(self, *, writes: bool) -> None:
        """Nothing more is needed."""

    def attach(self, options: ServeOptions, attach: Attach) -> registry.Entry:
        """Over NBD, connected to the device that was named, or to a free one."""
        if options.device is not None:
            return attach(options)
        tried: frozenset[str] = frozenset()
        while True:
            device = free_device(tried)
            try:
                return attach(options.with_device(device))
            except server.ServerError:
                # Another program may have taken it first.
                if not nbd_client.connected(device):
                    raise
                tried |= {device}

    def source(self, record: registry.Record) -> str:
        """The device."""
        assert record.device is not None
        return record.device

    def mount(self, mounting: Mounting) -> None:
        """By mount(8); a partition from a loop device."""
        kernel.mount(mounting, by_loop=mounting.volume.size is not None)


def free_device(tried: frozenset[str] = frozenset()) -> str:
    """A kernel NBD device that is not connected."""
    known = _devices()
    if not known:
        load("nbd", Path("/dev/nbd0"))
        known = _devices()
    for device in known:
        if device not in tried and not nbd_client.connected(device):
            return device
    if known:
        raise MountError(f"all {len(known)} kernel NBD devices are in use: detach one of them")
    raise MountError(
        "this kernel has no NBD devices: load its module with: modprobe nbd; or use --via fuse"
    )


def _devices() -> list[str]:
    names = [path.name for path in nbd_client.BLOCK_DEVICES.glob("nbd*")]
    found = [name for name in names if re.fullmatch(r"nbd\d+", name)]
    return [f"/dev/{name}" for name in sorted(found, key=lambda name: int(name[3:]))]
