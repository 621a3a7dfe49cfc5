"""File systems that write before they can be read, or cannot be written at all: the remedies.

After a crash most file systems put the changes in a journal or log in place, even when they are
mounted read-only. A device without a cowfile does not let them.
"""

from __future__ import annotations

from cowcloop.files import MEMORY
from cowcloop.mount.probe import Volume

#: The option to mount one without that, where the kernel has it.
WITHOUT_REPLAY = {
    "ext3": "noload",
    "ext4": "noload",
    "xfs": "norecovery",
    "btrfs": "rescue=nologreplay",
    "f2fs": "norecovery",
    "nilfs2": "norecovery",
}
# Those without such an option, or, as bcachefs, with one that is not for this.
_REPLAYING = ("bcachefs", "hfsplus", "jfs", "ntfs", "reiser4", "reiserfs")

# Repairs for a file system that its driver does not mount writable as it was left.
_CHECKS = {"hfsplus": "fsck.hfsplus", "jfs": "fsck.jfs", "ntfs": "ntfsfix", "exfat": "fsck.exfat"}


def remedy(kind: str, read_only: bool) -> str:
    """The remedy where the kernel does not mount a file system of this kind; "" if not known."""
    if read_only and kind in (*WITHOUT_REPLAY, *_REPLAYING):
        return (
            f"; a {kind} may have changes in its journal that have to be put in place first: give "
            f"{MEMORY} as COW to have that done in memory, or a cowfile to keep it"
        )
    if not read_only and kind in _CHECKS:
        return (
            f"; a {kind} may not have been unmounted properly: attach it with --device, and have "
            f"{_CHECKS[kind]} mend it"
        )
    return ""


def mounted_without(volume: Volume, option: str) -> str:
    """Of a mount that leaves out what the journal has."""
    return (
        f"the journal of its {volume.kind} has changes that cannot be put in place on a read-only "
        f"device: mounted without them ({option}); give a COW"
    )


def doubling(volume: Volume) -> str:
    """Of a journal over a cowfile."""
    words = f"its {volume.kind} keeps a journal, so what is written goes to the cowfile twice"
    if volume.is_ext:
        return f'{words}; "tune2fs -O ^has_journal" on the attached device takes it away'
    return f"{words}; an ext2 without one is kinder to a cowfile"


def read_only_after_all(volume: Volume) -> str:
    """Of a mount that was to be writable, and which the kernel has made read-only."""
    return (
        f"its {volume.kind} can only be mounted read-only: nothing will go to the COW; to change "
        "files in it, copy them to a directory, and make an image of that with: cowcloop create"
    )
