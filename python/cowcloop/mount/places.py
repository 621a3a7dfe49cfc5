"""What mounting keeps in the registry's entry of a device."""

from __future__ import annotations

from pathlib import Path

#: The name of the file that is the device.
DISK = "device"
#: What fuse2fs says.
FILESYSTEM_FIFO = "filesystem.fifo"


def disk_folder(entry: Path) -> Path:
    """Where nbdfuse shows the device as a file."""
    return entry / "disk"


def disk_file(entry: Path) -> Path:
    """The device as a file."""
    return disk_folder(entry) / DISK


def disk_fifo(entry: Path) -> Path:
    """What nbdfuse says."""
    return entry / "disk.fifo"
