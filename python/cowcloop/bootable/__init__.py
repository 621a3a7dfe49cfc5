"""A bootable ISO image out of a root directory, or out of an image and its changes.

It composes programs that others keep: mke2fs, initramfs-tools, grub-mkrescue with xorriso.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Callable, Optional

from cowcloop.bootable import grub
from cowcloop.bootable.grub import Settings
from cowcloop.bootable.parts import Parts
from cowcloop.bootable.tools import ToolError

__all__ = ["Job", "Parts", "Settings", "ToolError"]

_Report = Optional[Callable[[int, Optional[int]], object]]


@dataclass(frozen=True)
class Job:
    """How an ISO image is made of its parts."""

    parts: Parts
    settings: Settings
    level: int | str
    block_size: int
    threads: int | None
    #: bytes of room that the file system of a directory has
    free: int
    #: for one piece of the work: its name in, a function that is told how far it is out
    progress: Callable[[str], AbstractContextManager[_Report]]
    warn: Callable[[str], None]

    def run(self, out: str, beside: str | None, *, force: bool) -> dict[str, Any]:
        """Make `out`, complete or not at all, with the work in a directory in `beside`."""
        from cowcloop import _core

        self.parts.check(out)
        _core.check_output(out, force=force)
        with tempfile.TemporaryDirectory(prefix=".cowcloop-", dir=beside) as work:
            tree, iso = os.path.join(work, "tree"), os.path.join(work, "iso")
            os.makedirs(os.path.join(tree, os.path.dirname(grub.IMAGE)))
            self.parts.copy_kernel(tree, work)
            image = self._compress(os.path.join(tree, grub.IMAGE), beside)
            grub.make_iso(out, tree, iso, self.settings, work)
            shutil.rmtree(tree)
            with self.progress("writing") as report:
                done = _core.extract(iso, [], out, sparse=False, force=force, progress=report)
        return {
            "size": done["size"],
            "image_size": image["file_size"],
            "label": self.settings.label,
            "command_line": " ".join(self.settings.words()),
        }

    def _compress(self, target: str, beside: str | None) -> dict[str, Any]:
        from cowcloop import _core
        from cowcloop.ext2 import filesystem_of

        parts = self.parts
        options: dict[str, Any] = {
            "level": self.level,
            "block_size": self.block_size,
            "threads": self.threads,
        }
        if not parts.is_tree:
            with self.progress("committing") as report:
                changes = list(parts.cows)
                return _core.commit(parts.source, changes, target, progress=report, **options)
        filesystem = filesystem_of(parts.image, beside, free=self.free, warn=self.warn)
        with filesystem as source, self.progress("compressing") as report:
            return _core.create(source, target, progress=report, **options)
