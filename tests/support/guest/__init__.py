"""A stock kernel to test against: Debian 13's, in qemu under software emulation, without KVM.

The machines that the tests run on may have a kernel without nbd, ublk, iso9660, vfat or systemd.
Everything here comes from the Debian mirror that the machine's own apt uses, is unpacked below
``cache()`` without being installed, and is fetched once.

`packages` fetches, `kernel` and `system` make what is booted, `machine` boots it. `inside` runs
there, as part of a scenario, and `told` is what that has told.
"""

from __future__ import annotations

from support.guest.initramfs import Initramfs
from support.guest.machine import Drive, Machine, boot
from support.guest.system import Payload, system_image
from support.guest.told import Told

__all__ = ["Drive", "Initramfs", "Machine", "Payload", "Told", "boot", "system_image"]
