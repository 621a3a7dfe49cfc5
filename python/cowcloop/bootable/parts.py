"""What an ISO image is made of: a root, a kernel and an initramfs."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cowcloop.bootable import grub, initramfs
from cowcloop.errors import InvalidInputError, NotFoundError
from cowcloop.files import among
from cowcloop.programs import check_programs
from cowcloop.source import Part, Source, file_of, locate, shown


@dataclass(frozen=True)
class Parts:
    """The root as a directory or an image; the others as files, or None to find them."""

    image: str
    cows: Sequence[str]
    kernel: str | None
    initrd: str | None
    #: how the image is read, where it is one
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def is_tree(self) -> bool:
        """Whether the root is a directory."""
        return os.path.isdir(self.image)

    @cached_property
    def source(self) -> Source:
        """The image."""
        return locate(self.image, **self.options)

    @cached_property
    def _disc(self) -> str | None:
        """The ISO image in which the image lies."""
        inside = isinstance(self.source, Part) and self.source.ranges
        return file_of(self.source) if inside else None

    def check(self, out: str) -> None:
        """Refuse, before the work begins, what cannot become an ISO image in `out`."""
        given = [name for name in (self.kernel, self.initrd) if name is not None]
        for name in given:
            if not os.path.isfile(name):
                raise NotFoundError(errno.ENOENT, f"{name}: no such file", name)
        if self.is_tree:
            if self.cows:
                message = "a cowfile goes with an image, and not with a directory: leave it out"
                raise InvalidInputError(f"{self.cows[0]}: {message}")
        elif len(given) < 2 and self._disc is None:
            message = "only an image in an ISO image has a kernel beside it"
            raise InvalidInputError(f"{shown(self.image)}: {message}: add --kernel and --initrd")
        read = [] if self.is_tree else [file_of(self.source), *self.cows]
        if among(out, [*read, *given]):
            raise InvalidInputError(f"{out}: is one of the inputs: name another file for OUT")
        programs = [*grub.PROGRAMS]
        if self.is_tree:
            programs += [("mke2fs", "e2fsprogs"), ("e2fsck", "e2fsprogs")]
            if self.initrd is None:
                programs += initramfs.PROGRAMS
        check_programs(*programs)

    def copy_kernel(self, place: str, work: str) -> None:
        """Put the kernel and the initramfs where the boot loader looks for them."""
        kernel, initrd = self.kernel, self.initrd
        if self.is_tree and (kernel is None or initrd is None):
            found = initramfs.newest_kernel(self.image)
            kernel = kernel or found.path
            initrd = initrd or initramfs.initramfs_of(self.image, found.version, work)
        for path, name in ((kernel, grub.KERNEL), (initrd, grub.INITRD)):
            target = os.path.join(place, name)
            if path is None:
                self._copy_of_disc(name, target)
            else:
                shutil.copyfile(path, target)

    def _copy_of_disc(self, name: str, target: str) -> None:
        from cowcloop import _core

        # Of the options those that say how it is fetched: a digest is the image's alone.
        fetched = {k: v for k, v in self.options.items() if not k.startswith("verity")}
        _core.extract(locate(f"{self._disc}:/{name}", **fetched), [], target, sparse=False)
