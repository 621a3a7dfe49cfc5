"""The files that mounting keeps in a device's entry in the registry."""

from __future__ import annotations

from pathlib import Path

from cowcloop.server.start import FILE_FOLDER

#: The messages of fuse2fs.
FILESYSTEM_FIFO = "filesystem.fifo"


def file_folder(entry: Path) -> Path:
    """Where a device is a file."""
    return entry / FILE_FOLDER
