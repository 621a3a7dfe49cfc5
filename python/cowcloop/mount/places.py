"""The files that mounting keeps in a device's entry in the registry."""

from __future__ import annotations

from pathlib import Path

#: The name of the file that is the device.
DISK = "device"
#: The messages of fuse2fs.
FILESYSTEM_FIFO = "filesystem.fifo"


def disk_folder(entry: Path) -> Path:
    """Where nbdfuse shows the device as a file."""
    return entry / "disk"


def disk_file(entry: Path) -> Path:
    """The device as a file."""
    return disk_folder(entry) / DISK


def disk_fifo(entry: Path) -> Path:
    """The messages of nbdfuse."""
    return entry / "disk.fifo"
