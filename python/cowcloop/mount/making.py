"""mount: the device is served, made visible as a block device or file, and mounted."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cowcloop import mounts, registry, server
from cowcloop.errors import CowcloopError
from cowcloop.mount import ending, fuse, journals, probe, ways
from cowcloop.mount.errors import MountError
from cowcloop.mount.places import DISK, FILESYSTEM_FIFO, disk_fifo, disk_file, disk_folder
from cowcloop.mount.programs import run
from cowcloop.programs import find_program
from cowcloop.server import units
from cowcloop.server.interrupts import Interrupts
from cowcloop.server.messages import Message
from cowcloop.server.options import ServeOptions
from cowcloop.server.process import Report


@dataclass(frozen=True)
class MountOptions:
    """How to mount: one of WAYS or None, the partition's number, options for mount(8)."""

    via: str | None = None
    partition: int | None = None
    options: tuple[str, ...] = ()


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
        way = "nbd" if options.device is not None else ways.choose(wanted.via)
        read_only = options.read_only or not options.cows or "ro" in _words(wanted.options)
        ways.check(way, writes=not read_only)
        entry = None
        try:
            entry = _attach(options, way, interrupts, report, log)
            assert entry.record is not None
            entry = entry.write(replace(entry.record, mount=place, via=way, mounts_below=below))
            assert entry.record is not None
            source = entry.record.device or _as_file(entry, entry.record, interrupts)
            interrupts.check()
            volume = probe.find_volume(source, options.image, wanted.partition)
            _mount(
                entry.record, entry.path, source, volume, options.image, wanted, interrupts, report
            )
            interrupts.check()
            found = mounts.at(place)
            made = replace(
                entry.record,
                mounted=None if found is None else found.device,
                never_written=mounts.is_read_only(place),
            )
            for message in _warnings(made, volume, wanted):
                report(Message("warning", f"{options.image}: {message}"))
            entry = entry.write(made)
            units.keep(entry)
            return entry
        except BaseException:
            if entry is not None:
                with contextlib.suppress(CowcloopError, OSError):
                    ending.release(entry, discard=True)
            # The failure may be due to a signal that reached one of our programs.
            interrupts.check()
            raise


def _words(options: tuple[str, ...]) -> list[str]:
    return ",".join(options).split(",")


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


def _attach(
    options: ServeOptions, way: str, interrupts: Interrupts, report: Report, log: str | None
) -> registry.Entry:
    if way != "nbd" or options.device is not None:
        return server.attach(options, report=report, loop=interrupts.loop(), log=log, keep=False)
    tried: frozenset[str] = frozenset()
    while True:
        device = ways.free_nbd(tried)
        try:
            chosen = options.with_device(device)
            loop = interrupts.loop()
            return server.attach(chosen, report=report, loop=loop, log=log, keep=False)
        except server.ServerError:
            # Another program may have taken it first.
            if not ways.connected(device):
                raise
            tried |= {device}


def _as_file(entry: registry.Entry, record: registry.Record, interrupts: Interrupts) -> str:
    """The device as a file, by nbdfuse."""
    folder = disk_folder(entry.path)
    folder.mkdir(mode=0o700)
    command = [find_program("nbdfuse", "libnbd-bin")]
    if record.read_only:
        command.append("-r")
    command += [f"{folder}/{DISK}", record.uri]
    fuse.start(command, disk_fifo(entry.path), os.path.realpath(folder), interrupts)
    return str(disk_file(entry.path))


def _mount(
    record: registry.Record,
    folder: Path,
    source: str,
    volume: probe.Volume,
    image: str,
    wanted: MountOptions,
    interrupts: Interrupts,
    report: Report,
) -> None:
    assert record.mount is not None
    options = ["ro" if record.read_only else "rw", "noatime", *wanted.options]
    if record.via == "fuse2fs":
        _mount_by_fuse2fs(folder, record.mount, volume, image, options, interrupts)
        return
    place = ["loop"] if record.device is None or volume.start else []
    if volume.size is not None:
        place = ["loop", f"offset={volume.start}", f"sizelimit={volume.size}"]
    program = find_program("mount", "mount")

    def attempt(*more: str) -> str | None:
        """Mount; None, or why not."""
        joined = ",".join([*place, *options, *more])
        command = (program, "-t", volume.kind, "-o", joined, "--", source, str(record.mount))
        done = run(*command)
        return done.reason(str(record.mount)) if done.code else None

    reason = attempt()
    without = journals.WITHOUT_REPLAY.get(volume.kind)
    if reason is not None and record.read_only and without and attempt(without) is None:
        message = journals.mounted_without(volume, without)
        report(Message("warning", f"{image}: {message}"))
        return
    if reason is not None and "unknown filesystem type" in reason:
        reason = (
            f"this kernel cannot mount {volume.kind}: load its module with: modprobe {volume.kind}"
        )
    elif reason is not None and wanted.options:
        # mount(8) does not always say which word it was.
        given = ",".join(wanted.options)
        reason = f"its {volume.kind} cannot be mounted with -o {given} (try without): {reason}"
    elif reason is not None:
        reason += journals.remedy(volume.kind, record.read_only)
    if reason is not None:
        raise MountError(f"{image}: {reason}")


def _mount_by_fuse2fs(
    folder: Path,
    place: str,
    volume: probe.Volume,
    image: str,
    options: list[str],
    interrupts: Interrupts,
) -> None:
    if not volume.is_ext:
        raise MountError(
            f"{image} holds {volume.kind}, but fuse2fs mounts ext2, ext3 and ext4 only: "
            "mount it as root"
        )
    more = [f"offset={volume.start}"] if volume.start else []
    if os.geteuid() != 0:
        # The owners in the image are of another system: the user that mounts it is root in it.
        more.append("fakeroot")
    joined = ",".join([*options, *more])
    # Relative: a comma in a path would end an option.
    command = [find_program("fuse2fs", "fuse2fs"), "-f", "-o", joined]
    source = str(disk_file(folder).relative_to(folder))
    try:
        fuse.start([*command, source, place], folder / FILESYSTEM_FIFO, place, interrupts)
    except MountError as error:
        raise MountError(f"{image}: {str(error).replace(source, image)}") from None


def _warnings(record: registry.Record, volume: probe.Volume, wanted: MountOptions) -> Iterator[str]:
    """Warn of what may surprise the user about a new mount."""
    if record.read_only:
        return
    if not record.never_written:
        if volume.journal:
            yield journals.doubling(volume)
    elif "ro" not in ",".join(wanted.options).split(","):
        yield journals.read_only_after_all(volume)
