"""The image as a file in a file system of another kind that the running kernel mounts.

That is how squashfs and EROFS, which compress files, hold a block device.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benches.model import UnavailableError
from benches.programs import run


@contextmanager
def mounted(kind: str, holder: Path, name: str) -> Iterator[Path]:
    """The file of this name in ``holder``, with nothing of it in the page cache."""
    if kind not in Path("/proc/filesystems").read_text().split():
        raise UnavailableError(f"the running kernel has no {kind}")
    if os.geteuid() != 0:
        raise UnavailableError(f"only root can mount {kind}")
    folder = tempfile.mkdtemp(prefix="cowcloop-bench-")
    try:
        run(["mount", "-t", kind, "-o", "loop,ro", holder, folder])
        try:
            path = Path(folder, name)
            # A mount of the same file elsewhere shares its page cache with this one.
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            yield path
        finally:
            run(["umount", folder])
    finally:
        os.rmdir(folder)
