"""FUSE of our own, a loop device on it, and the kernel's file system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cowcloop import registry
from cowcloop.modules import load
from cowcloop.mount import kernel
from cowcloop.mount.ways.base import (
    KERNEL_PROGRAMS,
    Attach,
    Mounting,
    Way,
    check_fuse,
    needs_root,
)
from cowcloop.server.options import ServeOptions

_LOOP = Path("/dev/loop-control")


class ByFuse(Way):
    """For root."""

    name = "fuse"
    programs = KERNEL_PROGRAMS

    def refusal(self) -> str | None:
        """Root alone has loop devices, where the kernel has them."""
        if _LOOP.exists() or load("loop", _LOOP):
            return needs_root(self.name)
        return needs_root(self.name) or (
            f"{_LOOP} does not exist: load the kernel's module with: modprobe loop"
        )

    def check(self, *, writes: bool) -> None:
        """FUSE is needed."""
        check_fuse()

    def attach(self, options: ServeOptions, attach: Attach) -> registry.Entry:
        """As a file."""
        return attach(replace(options, as_file=True))

    def source(self, record: registry.Record) -> str:
        """The file."""
        return record.uri

    def mount(self, mounting: Mounting) -> None:
        """By mount(8), from a loop device."""
        kernel.mount(mounting, by_loop=True)
