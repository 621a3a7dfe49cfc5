"""live: an ISO image that boots a root directory, or an image with its changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import COWS, FORCE, JSON, PATH, SIZE, THREADS, command
from cowcloop.cli.compression import BLOCK_SIZE_OF_RAW, level_option
from cowcloop.cli.create import place_beside
from cowcloop.cli.device_options import options_of
from cowcloop.cli.progress import progress
from cowcloop.options import ImageKeywords
from cowcloop.sizes import format_size

if TYPE_CHECKING:
    from cowcloop.bootable import Settings


@command("live")
@click.argument("image", type=PATH, metavar="DIR|IMAGE")
@COWS
@click.argument("out", type=PATH)
@click.option("--kernel", type=PATH, metavar="FILE", help="The kernel (default: DIR's newest).")
@click.option(
    "--initrd",
    type=PATH,
    metavar="FILE",
    help="The initramfs (default: DIR's, or a new one).",
)
@click.option("--append", default="", metavar="WORDS", help="More for the kernel's command line.")
@click.option(
    "--label",
    default="COWCLOOP",
    metavar="NAME",
    help="The medium's name, by which it is found (default: COWCLOOP).",
)
@click.option(
    "--cow",
    default="ram",
    metavar="WHERE",
    help="Where changes go: ram, ram:SIZE, LABEL=NAME ... (default: ram).",
)
@click.option(
    "--free",
    type=SIZE,
    default="1G",
    metavar="SIZE",
    help="Room to write, beside what DIR takes (default: 1G).",
)
@level_option("1 is fast, 9 small, best tries everything (default: 8).")
@BLOCK_SIZE_OF_RAW
@options_of(ImageKeywords)
@THREADS
@FORCE
@JSON
def live_command(
    image: str,
    cows: tuple[str, ...],
    out: str,
    kernel: str | None,
    initrd: str | None,
    append: str,
    label: str,
    cow: str,
    free: int,
    level: int | str,
    block_size: int,
    threads: int | None,
    force: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Make the ISO image OUT, which boots the system in DIR, or in IMAGE with the changes in COW.

    It boots by BIOS and by UEFI (amd64), from a disc, and from a stick or disk to which OUT was
    copied. The kernel is the newest boot/vmlinuz-VERSION of DIR. The initramfs is its
    boot/initrd.img-VERSION if cowcloop's hook is in it. If not, one is made by the
    initramfs-tools of DIR or of this machine, whichever have the hook: it comes with the Debian
    package of cowcloop. With an IMAGE in an ISO image of an earlier "live", both come from there;
    any other IMAGE needs --kernel and --initrd.

    WHERE is ram, with or without a limit (ram:512M), none, or a partition (LABEL=NAME, UUID=X,
    /dev/X), in which a path may follow (LABEL=NAME/my.cow).

    OUT is complete or not there. Its directory needs room for the image twice more.

    \b
    Examples:
      cowcloop live tree live.iso
      cowcloop live tree live.iso --cow LABEL=changes --append "quiet console=ttyS0"
      cowcloop live live.iso:/live/root.cloop changes.cow new.iso
    """
    from cowcloop.bootable import Job, Parts

    if out == "-":
        raise click.UsageError("OUT needs a name, not -: an ISO image is made in several steps")
    job = Job(
        Parts(image, cows, kernel, initrd, values),
        _settings(label, cow, append),
        level=level,
        block_size=block_size,
        threads=threads,
        free=free,
        progress=progress,
        warn=console.warning,
    )
    done = job.run(out, place_beside(out), force=force)
    image_size = format_size(done["image_size"])
    console.outcome(as_json, out, done, f"{format_size(done['size'])}, the image {image_size}")


def _settings(label: str, cow: str, append: str) -> Settings:
    from cowcloop.bootable import Settings
    from cowcloop.errors import InvalidInputError

    try:
        return Settings(label, cow, append)
    except InvalidInputError as error:
        raise click.UsageError(str(error)) from None
