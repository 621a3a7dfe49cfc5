"""FUSE of our own, and fuse2fs on it: without root."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from cowcloop import registry
from cowcloop.mount import background
from cowcloop.mount.errors import MountError
from cowcloop.mount.places import FILESYSTEM_FIFO
from cowcloop.mount.programs import run
from cowcloop.mount.ways.base import Attach, Mounting, Way, check_fuse
from cowcloop.programs import find_program
from cowcloop.server.options import ServeOptions

# libfuse 3 leaves it to the program to cut a file that is opened with O_TRUNC. e2fsprogs 1.47.1
# was the first whose fuse2fs can be built with it, 1.47.3 the first that cuts: between them the
# end of what was in such a file stays behind what is written (Debian 13 has 1.47.2). Built with
# libfuse 2, as in Debian 12, none of them is wrong.
_WRONG_SINCE, _RIGHT_SINCE = (1, 47, 1), (1, 47, 3)

_PROGRAM = re.compile(r"^fuse2fs (\d+(?:\.\d+)*)", re.MULTILINE)
_LIBRARY = re.compile(r"^FUSE library version:? 3\.", re.MULTILINE)


class ByFuse2fs(Way):
    """For everyone; ext2, ext3 and ext4 only."""

    name = "fuse2fs"
    programs = (("fuse2fs", "fuse2fs"), ("fusermount3", "fuse3"))

    def refusal(self) -> str | None:
        """Everyone may try."""
        return None

    def check(self, *, writes: bool) -> None:
        """FUSE is needed, and a fuse2fs that writes what it is told to."""
        check_fuse()
        if writes:
            check_writable()

    def attach(self, options: ServeOptions, attach: Attach) -> registry.Entry:
        """As a file."""
        return attach(replace(options, as_file=True))

    def source(self, record: registry.Record) -> str:
        """The file."""
        return record.uri

    def mount(self, mounting: Mounting) -> None:
        """By fuse2fs, in the background."""
        volume, image, folder = mounting.volume, mounting.image, mounting.folder
        if not volume.is_ext:
            raise MountError(
                f"{image} holds {volume.kind}, but fuse2fs mounts ext2, ext3 and ext4 only: "
                "mount it as root"
            )
        more = [f"offset={volume.start}"] if volume.start else []
        if os.geteuid() != 0:
            # The owners in the image are of another system: the user that mounts it is root in it.
            more.append("fakeroot")
        joined = ",".join([*mounting.words, *more])
        # Relative: a comma in a path would end an option.
        command = [find_program("fuse2fs", "fuse2fs"), "-f", "-o", joined]
        source = str(Path(mounting.source).relative_to(folder))
        try:
            background.start(
                [*command, source, mounting.place],
                folder / FILESYSTEM_FIFO,
                mounting.place,
                mounting.interrupts,
            )
        except MountError as error:
            raise MountError(f"{image}: {str(error).replace(source, image)}") from None


def check_writable() -> None:
    """Refuse to write with a fuse2fs that damages files."""
    done = run(find_program("fuse2fs", "fuse2fs"), "-V")
    text = f"{done.output}\n{done.errors}"
    found = _PROGRAM.search(text)
    if found is None or _LIBRARY.search(text) is None:
        return
    version = tuple(map(int, found[1].split(".")))
    if _WRONG_SINCE <= version < _RIGHT_SINCE:
        raise MountError(
            f"fuse2fs {found[1]} damages files: one that is written anew keeps the end of what "
            "was in it: mount with --read-only, mount as root (without --via fuse2fs), or get "
            "fuse2fs 1.47.3 or newer"
        )
