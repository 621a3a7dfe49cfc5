"""A file of a FUSE file system, by cowcloopd."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from cowcloop import mounts
from cowcloop.server.address.base import Address

#: What cowcloopd calls the file.
FILE = "disk"


@dataclass(frozen=True)
class FuseAddress(Address):
    """The one file below a directory of its own, which is made when it is missing."""

    folder: str

    program = "cowcloopd"

    @property
    def name(self) -> str:
        """The path of the file."""
        return f"{self.folder}/{FILE}"

    def uri(self, tls: bool = False) -> str:
        """The path of the file."""
        return self.name

    def arguments(self) -> list[str]:
        """The door, and where to mount it."""
        return ["fuse", self.folder]

    def check(self) -> None:
        """Nothing can be in the way below a directory of its own."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)

    def make_private(self) -> None:
        """Nothing is done: the file is its owner's alone."""

    def answers(self, timeout: float = 1.0) -> bool:
        """The kernel waits for the first answer before the server says that it is ready."""
        return True

    def remove(self) -> None:
        """Remove the directory, with what a server that was killed left there."""
        mounts.take_away(Path(os.path.realpath(self.folder)).parent)
        with contextlib.suppress(OSError):
            os.rmdir(self.folder)
