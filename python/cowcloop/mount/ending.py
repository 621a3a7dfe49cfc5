"""umount: brings everything to disk, then undoes each step of mount, in reverse.

Each step looks for what there is, so it also cleans up after a crash, and can be repeated.
"""

from __future__ import annotations

import contextlib
import enum
import os
import time
from pathlib import Path

from cowcloop import mounts, registry, server
from cowcloop.errors import CowcloopError
from cowcloop.mount import background
from cowcloop.mount.errors import MountError
from cowcloop.mount.places import FILESYSTEM_FIFO, file_folder
from cowcloop.mount.programs import run
from cowcloop.programs import find_program
from cowcloop.server import block_device

# The kernel gives a loop device and the file below it back a moment after the unmount.
_PATIENCE = 15.0
_PAUSE = 0.02


class Ended(enum.Enum):
    """How it ended."""

    ON_DISK = "everything is on disk"
    NOT_WRITTEN = "it was read-only"
    CRASHED = "what was not on disk when it ended is lost"
    DISCARDED = "what could not be written is lost"


def mounted_on(directory: str) -> registry.Entry:
    """The device that mount has mounted on a directory."""
    place = os.path.realpath(directory)
    for entry in registry.entries():
        if entry.record is not None and entry.record.mount == place:
            return entry
    if mounts.at(place) is None:
        raise MountError(f"{directory}: nothing is mounted there")
    if os.geteuid() != 0:
        raise MountError(
            f"{directory} is not a mount of this user's cowcloop: what root has mounted, root "
            "unmounts it (sudo); otherwise use umount(8)"
        )
    raise MountError(f"{directory} is not a mount of cowcloop's: use umount(8)")


def broken(entry: registry.Entry) -> str | None:
    """The program behind a mount that has ended by itself, if one has."""
    record = entry.record
    if record is None or record.mount is None:
        return None
    if not entry.alive():
        return record.program
    fifo = entry.path / FILESYSTEM_FIFO
    return "fuse2fs" if fifo.exists() and not background.running(fifo) else None


def check_unmounted(entry: registry.Entry) -> None:
    """Refuse to take a device away from under its mount."""
    record = entry.record
    if record is not None and record.mount is not None and record.is_mounted():
        raise MountError(f"{record.uri}: mounted on {record.mount}: use cowcloop umount")


def sync(entry: registry.Entry) -> None:
    """Bring all writes to a mount to disk."""
    record = entry.record
    if record is None or record.mount is None or not record.is_mounted():
        return
    done = run(find_program("sync", "coreutils"), "-f", "--", record.mount)
    if done.code:
        reason = done.reason(record.mount).rpartition(": ")[2]
        raise MountError(
            f"{record.mount}: not everything could be written: {reason}: make room where the "
            "cowfile lies, and write it again or copy it elsewhere"
        )


def release(entry: registry.Entry, *, discard: bool = False) -> Ended:
    """Unmount an entry's file system and end its device, or what is left of both.

    Returns when all is on disk. Refused while its cowfile has been removed, and while what could
    not be written may still be read from the mount, unless the changes may be discarded.
    """
    record = entry.record
    assert record is not None
    assert record.mount is not None
    crashed = broken(entry) is not None
    if not crashed:
        server.check_kept(entry, discard=discard)
    if not crashed and not record.read_only and not discard:
        sync(entry)
        _check_written(entry)
    place = record.mount
    # One that was mounted read-only may have been remounted since.
    written = not (record.never_written and record.is_mounted() and mounts.is_read_only(place))
    folder = os.path.realpath(file_folder(entry.path))
    if not crashed and record.uri.startswith(folder) and mounts.at(folder) is None:
        raise MountError(
            f"{place}: mounted in another mount namespace (a container?): unmount it there"
        )
    if not entry.alive():
        # An unmount would wait for a server that goes on with the device.
        block_device.clean_up(record)
    with background.ending(entry.path / FILESYSTEM_FIFO):
        if record.is_hidden():
            raise MountError(f"{place}: another mount lies over it: unmount that first")
        if record.is_mounted():
            _unmount(place, place)
    _wait_for_loop_devices(entry.path, place)
    failures = _end_device(entry, record, discard)
    if record.read_only or not written:
        return Ended.NOT_WRITTEN
    if crashed:
        return Ended.CRASHED
    if not failures:
        return Ended.ON_DISK
    if discard:
        return Ended.DISCARDED
    raise MountError(
        f"{place} is unmounted, but not everything could be written: {_times(failures)}"
    )


def _end_device(entry: registry.Entry, record: registry.Record, discard: bool) -> int:
    """End the device, or clean up after its server; how many writes have failed."""
    if entry.alive():
        failures = server.failures(entry)
        server.detach(entry, discard=discard)
        return failures
    with contextlib.suppress(CowcloopError):
        block_device.clean_up(record)
    # A server that was killed leaves its file system mounted.
    folder = os.path.realpath(file_folder(entry.path))
    if mounts.at(folder) is not None:
        _unmount(folder, record.mount or folder)
    entry.remove()
    return 0


def _check_written(entry: registry.Entry) -> None:
    """Refuse to unmount while what could not be written is still in the kernel's memory.

    The kernel tells of it once, to the program that syncs first; the server remembers.
    """
    record = entry.record
    assert record is not None
    failures = server.failures(entry) if record.is_mounted() else 0
    if failures:
        cow = record.cowfiles[-1] if record.cowfiles else "the cowfile"
        raise MountError(
            f"{record.mount}: not everything could be written to {cow} ({_times(failures)}): it is "
            "still mounted; copy elsewhere what was written lately, then: cowcloop umount --discard"
        )


def _times(failures: int) -> str:
    return "one write failed" if failures == 1 else f"{failures} writes failed"


def _unmount(point: str, named: str) -> None:
    end = time.monotonic() + (_PATIENCE if point != named else 0)
    while True:
        if os.geteuid() == 0:
            done = run(find_program("umount", "mount"), "--", point)
        else:
            done = run(find_program("fusermount3", "fuse3"), "-u", "--", point)
        if done.code == 0:
            return
        if "busy" not in done.errors:
            raise MountError(f"{named}: cannot unmount: {done.reason(point)}")
        if time.monotonic() > end:
            raise MountError(
                f"{named} is busy: a program uses it (fuser -vm shows which); nothing was changed"
            )
        time.sleep(_PAUSE)


def _wait_for_loop_devices(folder: Path, place: str) -> None:
    """Wait until the kernel has released them; detach those that are not mounted."""
    end = time.monotonic() + _PATIENCE
    while True:
        devices = mounts.loop_devices(folder)
        if not devices:
            return
        if time.monotonic() > end:
            raise MountError(f"{place}: {devices[0]} is still in use: end what uses it, and repeat")
        for device in devices:
            run(find_program("losetup", "mount"), "-d", device)
        time.sleep(_PAUSE)
