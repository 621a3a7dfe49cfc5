"""Mounting: from an image and its cowfiles to a directory, and back.

One file per step: `ways` chooses how the kernel gets at the device, `background` runs fuse2fs,
`probe` looks at what the device holds, `making` mounts and `ending` unmounts.
"""

from __future__ import annotations

from cowcloop.mount.ending import Ended, broken, check_unmounted, mounted_on, release, sync
from cowcloop.mount.errors import MountError
from cowcloop.mount.making import MountOptions, mount
from cowcloop.mount.ways import WAYS

__all__ = [
    "WAYS",
    "Ended",
    "MountError",
    "MountOptions",
    "broken",
    "check_unmounted",
    "mount",
    "mounted_on",
    "release",
    "sync",
]
