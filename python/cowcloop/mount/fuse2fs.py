"""Which versions of fuse2fs may write."""

from __future__ import annotations

import re

from cowcloop.mount.errors import MountError
from cowcloop.mount.programs import run
from cowcloop.programs import find_program

# libfuse 3 leaves it to the program to cut a file that is opened with O_TRUNC. e2fsprogs 1.47.1
# was the first whose fuse2fs can be built with it, 1.47.3 the first that cuts: between them the
# end of what was in such a file stays behind what is written (Debian 13 has 1.47.2). Built with
# libfuse 2, as in Debian 12, none of them is wrong.
_WRONG_SINCE, _RIGHT_SINCE = (1, 47, 1), (1, 47, 3)

_PROGRAM = re.compile(r"^fuse2fs (\d+(?:\.\d+)*)", re.MULTILINE)
_LIBRARY = re.compile(r"^FUSE library version:? 3\.", re.MULTILINE)


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
