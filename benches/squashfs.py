"""The image as a file in a squashfs that the running kernel mounts, where it can."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benches.material import Material
from benches.model import UnavailableError
from benches.programs import run


@contextmanager
def mounted(material: Material) -> Iterator[Path]:
    """The file, with nothing of it in the page cache."""
    if "squashfs" not in Path("/proc/filesystems").read_text().split():
        raise UnavailableError("the running kernel has no squashfs")
    if os.geteuid() != 0:
        raise UnavailableError("only root can mount squashfs")
    folder = tempfile.mkdtemp(prefix="cowcloop-bench-")
    try:
        run(["mount", "-t", "squashfs", "-o", "loop,ro", material.squashfs, folder])
        try:
            path = Path(folder, material.raw.name)
            # A mount of the same file elsewhere shares its page cache with this one.
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            yield path
        finally:
            run(["umount", folder])
    finally:
        os.rmdir(folder)
