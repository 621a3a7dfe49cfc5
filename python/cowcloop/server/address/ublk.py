"""A block device of its own, /dev/ublkbN, by cowcloopd."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cowcloop.errors import CowcloopError
from cowcloop.modules import load
from cowcloop.options import UBLK
from cowcloop.server.address.base import Address

_CONTROL = Path("/dev/ublk-control")


@dataclass(frozen=True)
class UblkAddress(Address):
    """The kernel chooses the number, which the server reports when it is ready."""

    program = "cowcloopd"

    @property
    def name(self) -> str:
        """What is known before the device is there."""
        return UBLK

    def uri(self, tls: bool = False) -> str:
        """What is known before the device is there."""
        return UBLK

    def arguments(self) -> list[str]:
        """The door."""
        return [UBLK]

    def check(self) -> None:
        """Refuse a kernel without ublk, and a user that may not use it."""
        reason = refusal()
        if reason is not None:
            raise CowcloopError(reason)

    def make_private(self) -> None:
        """Nothing is done: block devices are root's."""

    def answers(self, timeout: float = 1.0) -> bool:
        """The kernel has read from the device before the server says that it is ready."""
        return True

    def remove(self) -> None:
        """Nothing is left behind by a server that has ended in order."""


def refusal() -> str | None:
    """Why this machine, or this user, has no ublk; None: it has. Loads the module."""
    if not _CONTROL.exists() and not load("ublk_drv", _CONTROL):
        return (
            f"this kernel has no ublk ({_CONTROL} does not exist): load its module with: "
            "modprobe ublk_drv"
        )
    if not os.access(_CONTROL, os.R_OK | os.W_OK):
        return f"{_CONTROL}: this user may not make block devices: be root (sudo)"
    return None


def remove_left_behind(program: str, device: str) -> None:
    """Remove the device of a server that was killed, with what the kernel holds for it.

    `program` is the path of cowcloopd.
    """
    done = subprocess.run(
        [program, "remove", device], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().removeprefix("cowcloopd: error: ")
        raise CowcloopError(said or f"{device}: cannot be removed")
