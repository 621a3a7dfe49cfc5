"""The boot loader: GRUB, for BIOS and UEFI, put into an ISO image by its own grub-mkrescue."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

from cowcloop.bootable.tools import run
from cowcloop.errors import InvalidInputError
from cowcloop.programs import find_program

#: What one call of grub-mkrescue runs and reads.
PROGRAMS = (
    ("grub-mkrescue", "grub-common"),
    ("xorriso", "xorriso"),
    ("mformat", "mtools"),
    ("/usr/lib/grub/i386-pc", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi", "grub-efi-amd64-bin"),
)
#: Where the files lie in the ISO image.
KERNEL, INITRD, IMAGE = "live/vmlinuz", "live/initrd", "live/root.cloop"

_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,32}")
# Longer ones the kernel would cut without a word.
_LONGEST = 2048
_WHERE = re.compile(
    r"(none|ram|ram:\d+[KMGT]?|(medium|(LABEL|UUID|PARTLABEL|PARTUUID)=[^/]+|/dev/.+)(/.*)?)"
)

_MENU = """\
set timeout=3
menuentry {label} {{
    echo {loading}
    linux /{kernel} {words}
    initrd /{initrd}
}}
"""


@dataclass(frozen=True)
class Settings:
    """What the boot loader tells the kernel, and the name of the medium."""

    label: str = "COWCLOOP"
    cow: str = "ram"
    append: str = ""

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.label):
            message = "a label is 1 to 32 letters, digits and any of _.- : choose another one"
            raise InvalidInputError(f"--label {self.label!r}: {message}")
        if not _WHERE.fullmatch(self.cow) or set(self.cow) & set(", \t\n"):
            forms = "none, ram, ram:SIZE, LABEL=X, UUID=X or /dev/X, the last three also with /PATH"
            raise InvalidInputError(f"--cow {self.cow!r}: not a place for changes: give {forms}")
        words = self.words()
        if any(set(word) & set("'\"\\") or not word.isprintable() for word in words):
            message = "GRUB cannot hand on quotes, backslashes and control characters"
            raise InvalidInputError(f"--append {self.append!r}: {message}: leave them out")
        if len(" ".join(words)) >= _LONGEST:
            raise InvalidInputError(
                f"--append: the kernel takes {_LONGEST - 1} characters: shorten it"
            )

    def words(self) -> list[str]:
        """The kernel's command line."""
        try:
            more = shlex.split(self.append)
        except ValueError:
            message = "a quote is not closed: close it"
            raise InvalidInputError(f"--append {self.append!r}: {message}") from None
        root = f"root=cowcloop:LABEL={self.label}/{IMAGE},cow={self.cow}"
        # An initramfs made on this machine may know what this machine resumes from.
        return ["boot=cowcloop", root, "ro" if self.cow == "none" else "rw", "noresume", *more]


def make_iso(subject: str, tree: str, iso: str, settings: Settings, work: str) -> None:
    """An ISO image of a directory that has the three files, which boots from disc and stick.

    An error is one of the `subject`.
    """
    os.makedirs(os.path.join(tree, "boot/grub"))
    words = " ".join(map(shlex.quote, settings.words()))
    menu = _MENU.format(
        label=shlex.quote(settings.label),
        loading=shlex.quote(f"Loading {settings.label} ..."),
        kernel=KERNEL,
        initrd=INITRD,
        words=words,
    )
    with open(os.path.join(tree, "boot/grub/grub.cfg"), "w", encoding="utf-8") as file:
        file.write(menu)
    command = [find_program(*PROGRAMS[0]), "-o", iso, "--locales=", "--themes=", "--fonts="]
    # Level 3: a file may be larger than 4 GiB. On a stick, HFS+ would be a second file system of
    # this label.
    command += [tree, "-iso-level", "3", "-volid", settings.label, "--", "-hfsplus", "off"]
    run(subject, command, work)
