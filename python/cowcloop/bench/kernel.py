"""The real kernel module beside us, where one is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from cowcloop.disk import Disk

KERNEL_DEVICE = "/dev/cloop0"
_COMPARED = 64 << 10


def why_no_kernel(image: Disk) -> str | None:
    """Why kernel cloop cannot be measured on the same image; None when it can."""
    if not os.path.exists(KERNEL_DEVICE):
        return f"kernel cloop is not measured: there is no {KERNEL_DEVICE} (no cloop module here)"
    sectors = Path("/sys/block", os.path.basename(KERNEL_DEVICE), "size")
    size = int(sectors.read_text()) * 512 if sectors.exists() else 0
    if size == 0:
        return f"kernel cloop is not measured: no image is attached to {KERNEL_DEVICE}"
    try:
        with open(KERNEL_DEVICE, "rb") as device:
            start = device.read(_COMPARED)
    except OSError as error:
        return f"kernel cloop is not measured: {KERNEL_DEVICE}: {error.strerror}"
    if size != image.size or start != image.pread(_COMPARED, 0):
        return f"kernel cloop is not measured: {KERNEL_DEVICE} holds another image"
    return None
