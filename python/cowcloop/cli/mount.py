"""mount and umount: from an image and its cowfiles to a directory, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import COWS, DIRECTORY, DISCARD, IMAGE, command
from cowcloop.cli.completion import mounted_or_directory
from cowcloop.cli.device_options import LOG, check_device, check_log, options_of
from cowcloop.options import UBLK, ServedKeywords

_DIRECTORY = click.argument("directory", type=DIRECTORY, metavar="DIR")


def _mounted(function: Callable[..., None]) -> Callable[..., None]:
    return IMAGE(COWS(_DIRECTORY(options_of(ServedKeywords)(LOG(function)))))


@command("mount")
@_mounted
@click.option(
    "--partition", type=click.IntRange(1), metavar="N", help="Mount this partition of the device."
)
@click.option(
    "--via",
    type=click.Choice(["ublk", "fuse", "fuse2fs", "nbd"]),
    help="How (default: the first of these that works here; nbd only when named).",
)
@click.option(
    "-o",
    "--options",
    "mount_options",
    multiple=True,
    metavar="OPTIONS",
    help="More mount options, as for mount(8).",
)
def mount_command(
    image: str,
    cows: tuple[str, ...],
    directory: str,
    log: str | None,
    partition: int | None,
    via: str | None,
    mount_options: tuple[str, ...],
    **values: Any,
) -> None:
    """Mount IMAGE on the directory DIR, changes going to COW.

    Serves it in the background and mounts its file system with noatime: by ublk where the kernel
    has it, or by FUSE and a loop device, or, without root, by FUSE and fuse2fs (ext2, ext3 and
    ext4 only). --via nbd takes the kernel's NBD instead: such a mount fails when its server is
    killed. Without COW the mount is read-only. "cowcloop umount" ends all of it.

    A file system does not tell its programs at once when the medium of COW is full. The log says
    before that there is little space, and "cowcloop cow watch" can wait for it.

    \b
    Examples:
      cowcloop mount chicken /mnt
      cowcloop mount chicken chicken.cow /mnt
      cowcloop mount disk.img disk.cow /mnt --partition 1
      cowcloop umount /mnt
    """
    from cowcloop import mount
    from cowcloop.server.interrupts import noted_interrupts
    from cowcloop.server.options import ServeOptions

    wanted = mount.MountOptions(via=via, partition=partition, options=mount_options)
    if "rw" in wanted.words and (values["read_only"] or not cows):
        why = "with --read-only" if values["read_only"] else "without a COW"
        raise click.UsageError(f"-o rw: the device is read-only {why}")
    _check_via(values["device"], via)
    check_device({"cows": cows, **values})
    verbose = console.levels.verbose > 1
    options = ServeOptions.of(image, cows, nbdkit_verbose=verbose, **values)
    check_log(options, log)
    with noted_interrupts() as interrupts:
        entry = mount.mount(options, directory, wanted, interrupts, report=console.report, log=log)
    assert entry.record is not None
    console.note(f"{directory}: mounted via {entry.record.via}")


def _check_via(device: str | None, via: str | None) -> None:
    """Refuse a device that is not one of the way that was asked for."""
    if device is None or via is None:
        return
    needed = "ublk" if device == UBLK else "nbd"
    if via != needed:
        raise click.UsageError(f"--device {device} is for --via {needed}: leave out --via {via}")


@command("umount")
@click.argument("directory", type=DIRECTORY, metavar="DIR", shell_complete=mounted_or_directory)
@DISCARD
def umount_command(directory: str, discard: bool) -> None:
    """Unmount DIR and end its device; returns when everything is on disk.

    It cleans up after a crash, too. Where writes have failed it leaves DIR mounted, so that files
    can be copied elsewhere; with --discard it goes on.

    \b
    Examples:
      cowcloop umount /mnt
    """
    from cowcloop import mount
    from cowcloop.cli.waiting import waiting_for

    entry = mount.mounted_on(directory)
    with waiting_for(entry):
        ended = mount.release(entry, discard=discard)
    if ended is mount.Ended.CRASHED:
        console.warning(f"{directory}: unmounted after a crash: {ended.value}")
    elif ended is mount.Ended.DISCARDED:
        console.warning(f"{directory}: unmounted; {ended.value}")
    else:
        console.done(f"{directory}: unmounted; {ended.value}")
