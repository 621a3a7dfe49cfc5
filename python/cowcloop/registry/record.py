"""What the registry keeps about one served device: the file ``device.json``."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cowcloop import mounts
from cowcloop.files import MEMORY

FILE = "device.json"

# Letters of a record; sessions are not in it.
_LIMIT = 1 << 20


@dataclass
class Record:
    """What ``device.json`` says about one served device: by which `program`, at which `uri`.

    `mount` is a directory, `via` how it came to be mounted there, `mounted` the number of the
    file system's device once it is, `mounts_below` how many mounts there were before, and
    `never_written` whether the file system is mounted read-only. `supervised` is a device whose
    `pid` is that of a supervisor, which starts one server after the other, unless it says that no
    other server could go on with the device (`irreplaceable`). `image` is the name to show;
    `source` is the image's own, with the secrets of a URL, where the two differ, and
    `image_options` is how it is read.
    """

    pid: int
    uri: str
    socket: str | None
    image: str
    cowfiles: list[str]
    device: str | None = None
    mount: str | None = None
    via: str | None = None
    mounted: str | None = None
    mounts_below: int = 0
    never_written: bool = False
    read_only: bool = False
    sessions: str | None = None
    all_interfaces: bool = False
    program: str = "nbdkit"
    supervised: bool = False
    irreplaceable: str | None = None
    source: str | None = field(default=None, repr=False)
    image_options: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    version: int = 1

    @property
    def last_cowfile(self) -> str | None:
        """The path of the cowfile on top, if there is one on disk."""
        last = self.cowfiles[-1] if self.cowfiles else MEMORY
        return None if last == MEMORY else last

    def is_mounted(self) -> bool:
        """Whether the file system is still mounted, perhaps below another one."""
        return self._own_mounts() != []

    def is_hidden(self) -> bool:
        """Whether another file system has been mounted over it."""
        own = self._own_mounts()
        return self.mounted is not None and own != [] and own[-1] != self.mounted

    def _own_mounts(self) -> list[str]:
        """The devices mounted at its place since, ours among them."""
        here = [mount.device for mount in mounts.mounts() if mount.point == self.mount]
        since = here[self.mounts_below :]
        # While it is being mounted, its number is not known yet.
        return since if self.mounted in (None, *since) else []


def read(folder: Path) -> Record | None:
    """The record in an entry's directory; None when there is none that can be read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(folder / FILE, flags), encoding="utf-8") as file:
            values = json.loads(file.read(_LIMIT))
        names = {item.name for item in fields(Record)}
        return Record(**{name: value for name, value in values.items() if name in names})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
