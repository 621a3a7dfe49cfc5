"""mount: the device is served, made visible as a block device or file, and mounted."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cowcloop import mounts, registry, server
from cowcloop.errors import CowcloopError
from cowcloop.mount import ending, journals, probe, ways
from cowcloop.mount.errors import MountError
from cowcloop.programs import check_programs
from cowcloop.server import units
from cowcloop.server.interrupts import Interrupts
from cowcloop.server.messages import Message
from cowcloop.server.options import ServeOptions
from cowcloop.server.process import Report
from cowcloop.source import shown


@dataclass(frozen=True)
class MountOptions:
    """How to mount: one of WAYS or None, the partition's number, options for mount(8)."""

    via: str | None = None
    partition: int | None = None
    options: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The options for mount(8), one by one."""
        return ",".join(self.options).split(",")


def mount(
    options: ServeOptions,
    directory: str,
    wanted: MountOptions,
    interrupts: Interrupts,
    *,
    report: Report,
    log: str | None = None,
) -> registry.Entry:
    """Serve a device in the background and mount it; when it fails, nothing is left of it."""
    place = os.path.realpath(directory)
    _refuse_ours(place, directory)
    _check_directory(directory)
    with _claimed(place, directory):
        below = sum(1 for each in mounts.mounts() if each.point == place)
        way = ways.choose(_via(options, wanted.via), report)
        read_only = options.read_only or not options.cows or "ro" in wanted.words
        check_programs(("blkid", "util-linux"), *way.programs)
        way.check(writes=not read_only)
        entry = None

        def attach(chosen: ServeOptions) -> registry.Entry:
            return server.attach(chosen, report=report, loop=interrupts.loop(), log=log, keep=False)

        try:
            entry = way.attach(options, attach)
            assert entry.record is not None
            entry = entry.write(
                replace(entry.record, mount=place, via=way.name, mounts_below=below)
            )
            assert entry.record is not None
            interrupts.check()
            image = shown(options.image)
            volume = _mount_device(way, entry, image, wanted, interrupts, report)
            interrupts.check()
            entry = _noted(entry)
            assert entry.record is not None
            for message in _warnings(entry.record, volume, wanted):
                report(Message("warning", f"{image}: {message}"))
            units.keep(entry)
            return entry
        except BaseException:
            if entry is not None:
                with contextlib.suppress(CowcloopError, OSError):
                    ending.release(entry, discard=True)
            # The failure may be due to a signal that reached one of our programs.
            interrupts.check()
            raise


def _mount_device(
    way: ways.Way,
    entry: registry.Entry,
    image: str,
    wanted: MountOptions,
    interrupts: Interrupts,
    report: Report,
) -> probe.Volume:
    """Mount the file system on a device that is served, in the place of its record."""
    assert entry.record is not None
    source = way.source(entry.record)
    volume = probe.find_volume(source, image, wanted.partition)
    access = "ro" if entry.record.read_only else "rw"
    way.mount(
        ways.Mounting(
            entry.record,
            entry.path,
            source,
            volume,
            image,
            (access, "noatime", *wanted.options),
            wanted.options,
            interrupts,
            report,
        )
    )
    return volume


def _noted(entry: registry.Entry) -> registry.Entry:
    """Add to the record what is known once the device is mounted."""
    assert entry.record is not None
    place = entry.record.mount
    assert place is not None
    found = mounts.at(place)
    return entry.write(
        replace(
            entry.record,
            mounted=None if found is None else found.device,
            never_written=mounts.is_read_only(place),
        )
    )


def _via(options: ServeOptions, wanted: str | None) -> str | None:
    """The way that was asked for, be it by the device that is named."""
    if options.by_ublk:
        return "ublk"
    return "nbd" if options.device is not None else wanted


def _refuse_ours(place: str, typed: str) -> None:
    for entry in registry.entries():
        if entry.record is not None and entry.record.mount == place:
            raise MountError(f"{typed} already has a device of cowcloop's: cowcloop umount ends it")


def _check_directory(directory: str) -> None:
    try:
        os.listdir(directory)
    except NotADirectoryError:
        raise MountError(
            f"{directory} is not a directory: the last word says where to mount"
        ) from None
    except FileNotFoundError:
        raise MountError(f"{directory} does not exist: make a directory to mount on") from None
    except OSError as error:
        raise MountError(f"{directory}: {error.strerror}") from None


@contextlib.contextmanager
def _claimed(place: str, typed: str) -> Iterator[None]:
    """Alone with the directory: two mounts at one place would each hide the other."""
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MountError(f"{typed} is being mounted on by another cowcloop") from None
        _refuse_ours(place, typed)
        yield
    finally:
        os.close(handle)


def _warnings(record: registry.Record, volume: probe.Volume, wanted: MountOptions) -> Iterator[str]:
    """Warn of what may surprise the user about a new mount."""
    if record.read_only:
        return
    if not record.never_written:
        if volume.journal:
            yield journals.doubling(volume)
    elif "ro" not in wanted.words:
        yield journals.read_only_after_all(volume)
