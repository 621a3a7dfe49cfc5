"""Loop devices: a file, or a part of one, as a block device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cowcloop.mount.errors import MountError
from cowcloop.mount.probe import Volume
from cowcloop.mount.programs import run
from cowcloop.programs import find_program

# The kernel reads 128 KiB ahead unless told otherwise: too little for a server that has to be
# woken for each request, and inflates blocks of that size and more.
_READ_AHEAD_KIB = 1024


@contextlib.contextmanager
def attached(file: str, volume: Volume, *, read_only: bool) -> Iterator[str]:
    """A loop device over a volume in a file.

    After the block the kernel detaches it as soon as nothing uses it any more, which is at once
    where it was not mounted.
    """
    losetup = find_program("losetup", "mount")
    # The pages of the file system's own cache are enough: none are kept of what lies below.
    command = [losetup, "--find", "--show", "--direct-io=on"]
    if read_only:
        command.append("--read-only")
    if volume.size is not None:
        command += [f"--offset={volume.start}", f"--sizelimit={volume.size}"]
    done = run(*command, "--", file)
    device = done.output.strip()
    if done.code or not device:
        raise MountError(f"no loop device can be had: {done.reason(file)}")
    try:
        _set_read_ahead(device)
        yield device
    finally:
        run(losetup, "--detach", device)


def _set_read_ahead(device: str) -> None:
    # It works without, where there is no sysfs.
    with contextlib.suppress(OSError):
        path = Path("/sys/block", Path(device).name, "queue/read_ahead_kb")
        path.write_text(str(_READ_AHEAD_KIB), encoding="ascii")
