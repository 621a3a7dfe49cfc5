"""A block device of its own by ublk, and the kernel's file system."""

from __future__ import annotations

from cowcloop import registry
from cowcloop.mount import kernel
from cowcloop.mount.ways.base import KERNEL_PROGRAMS, Attach, Mounting, Way, needs_root
from cowcloop.options import UBLK
from cowcloop.server.address.ublk import refusal
from cowcloop.server.options import ServeOptions


class ByUblk(Way):
    """For root, where the kernel has ublk."""

    name = "ublk"
    programs = KERNEL_PROGRAMS

    def refusal(self) -> str | None:
        """Root alone mounts devices, where the kernel has them."""
        return needs_root(self.name) or refusal()

    def check(self, *, writes: bool) -> None:
        """Nothing more is needed."""

    def attach(self, options: ServeOptions, attach: Attach) -> registry.Entry:
        """As a device with the next free number."""
        return attach(options.with_device(UBLK))

    def source(self, record: registry.Record) -> str:
        """The device."""
        assert record.device is not None
        return record.device

    def mount(self, mounting: Mounting) -> None:
        """By mount(8); a partition from a loop device."""
        kernel.mount(mounting, by_loop=mounting.volume.size is not None)
