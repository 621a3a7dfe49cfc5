"""The kernel of a root directory, and an initramfs for it that knows root=cowcloop:IMAGE."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from cowcloop.bootable.tools import ToolError, run
from cowcloop.errors import NotFoundError
from cowcloop.programs import find_program

#: What finds and makes one.
PROGRAMS = (("lsinitramfs", "initramfs-tools-core"), ("mkinitramfs", "initramfs-tools-core"))

_HOOK = "usr/share/initramfs-tools/hooks/cowcloop"
# What the hook alone puts into an initramfs; boot scripts come into each of them.
_MARK = "usr/lib/cowcloop/root.sh"
_PACKAGE = "the Debian package of cowcloop"

# Nothing of this is seen outside of the mount namespace, and all of it ends with the program.
_BY_THE_TREE = """
set -e
for folder in dev proc sys; do mount --rbind "/$folder" "$1/$folder"; done
mount --bind "$2" "$1/tmp"
exec chroot "$1" env TMPDIR=/tmp mkinitramfs -o /tmp/initrd "$3"
"""
_BY_THIS_MACHINE = """
set -e
mount --bind "$1/usr/lib/modules" /lib/modules
mount --bind "$1/boot" /boot
exec mkinitramfs -o "$2/initrd" "$3"
"""


@dataclass(frozen=True)
class Kernel:
    """A kernel in a root directory, and its version."""

    path: str
    version: str


def newest_kernel(tree: str) -> Kernel:
    """The kernel in /boot with the highest version; NotFoundError where there is none."""
    boot = os.path.join(tree, "boot")
    names = os.listdir(boot) if os.path.isdir(boot) else []
    versions = [name.partition("-")[2] for name in names if name.startswith("vmlinuz-")]
    if not versions:
        message = "has no kernel, boot/vmlinuz-VERSION: install one there, or name it with --kernel"
        raise NotFoundError(errno.ENOENT, f"{tree}: {message}", tree)
    version = max(versions, key=_natural)
    return Kernel(os.path.join(boot, f"vmlinuz-{version}"), version)


def _natural(version: str) -> list[tuple[int, str]]:
    """6.12.9 comes before 6.12.10."""
    words = re.findall(r"\d+|\D+", version)
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]


def initramfs_of(tree: str, version: str, work: str) -> str:
    """An initramfs with the hook: the one in the tree, or one that is made in `work`."""
    ready = os.path.join(tree, "boot", f"initrd.img-{version}")
    if os.path.isfile(ready) and _has_hook(ready, work):
        return ready
    modules = os.path.join(tree, "usr/lib/modules", version)
    if not os.path.isdir(modules):
        message = f"has no modules of the kernel {version}, usr/lib/modules/{version}"
        remedy = "install them, or name an initramfs with --initrd"
        raise NotFoundError(errno.ENOENT, f"{tree}: {message}: {remedy}", tree)
    if os.path.exists(os.path.join(tree, _HOOK)):
        script = _BY_THE_TREE
    elif os.path.exists(f"/{_HOOK}"):
        script = _BY_THIS_MACHINE
        if not os.path.isdir("/lib/modules"):
            message = (
                "/lib/modules: no such directory here, where the modules of a tree are laid over"
            )
            raise ToolError(f"{message}: make an empty one")
    else:
        message = f"neither {tree} nor this machine has {_PACKAGE}, whose hook an initramfs needs"
        raise ToolError(f"{message}: install it in one of them, or name an initramfs with --initrd")
    unshare = [find_program("unshare", "util-linux"), "--mount"]
    if os.geteuid() != 0:
        unshare.append("--map-root-user")
    subject = f"{tree}: making the initramfs for {version}"
    run(subject, [*unshare, "sh", "-c", script, "mkinitramfs", tree, work, version], work)
    made = os.path.join(work, "initrd")
    if not _has_hook(made, work):
        where = tree if script is _BY_THE_TREE else "this machine"
        remedy = f"install busybox in {where}, and see that /etc/initramfs-tools there sets neither"
        raise ToolError(
            f"{subject}: the hook has left itself out: {remedy} COWCLOOP=n nor BUSYBOX=n"
        )
    return made


def _has_hook(initramfs: str, work: str) -> bool:
    """Whether the hook has put there what root=cowcloop: needs."""
    lsinitramfs = find_program(*PROGRAMS[0])
    try:
        return _MARK in run(initramfs, [lsinitramfs, initramfs], work).splitlines()
    except ToolError:
        # It is none that boots, as it is.
        return False
