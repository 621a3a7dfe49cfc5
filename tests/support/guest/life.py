"""One life of the guest that many tests look at."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support import images
from support.guest.system import Payload
from support.guest.told import Told
from support.programs import program, run

#: Seconds: an emulated machine among other tests. The first time, its disk is made before.
PATIENCE = 900


def make_payload(folder: Path, image: Path) -> Payload:
    """The project, with an image for the scenario as images/base.cloop."""
    payload = Payload(folder / "payload")
    (payload.folder / "images").mkdir()
    shutil.copy(image, payload.folder / "images/base.cloop")
    return payload


def make_data(folder: Path, size: str, *options: str | Path) -> Path:
    """The disk of the guest's /data; `options` are mke2fs's."""
    data = folder / "data.img"
    run(program("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", *options, data, size)
    return data


@dataclass(frozen=True)
class Partition:
    """The first partition of a disk."""

    disk: Path
    begin: int
    size: int

    @classmethod
    def make(cls, disk: Path, content: Path, begin: int = 1 << 20) -> Partition:
        """On a disk with nothing behind `begin`, or on a new one."""
        partition = cls(disk, begin, content.stat().st_size)
        with disk.open("r+b" if disk.exists() else "wb") as file:
            # The first entry of the table: a partition of Linux's, in sectors of 512 bytes.
            file.seek(446)
            file.write(struct.pack("<4xB3xII", 0x83, begin // 512, partition.size // 512))
            file.seek(510)
            file.write(b"\x55\xaa")
            file.seek(begin)
            file.write(content.read_bytes())
        return partition

    def read(self, content: Path) -> None:
        """What is on it now, into a file."""
        with self.disk.open("rb") as file:
            file.seek(self.begin)
            content.write_bytes(file.read(self.size))


def live_once(
    folder: Path, scenario: Path, prepare: Callable[[Path], tuple[Payload, Path]], **options: bool
) -> Told:
    """What the guest told, in whatever process it was run first.

    `prepare` makes the payload and the disk of /data in a new `folder`, and both stay there;
    `options` are those of `Payload.run`.
    """

    def live(folder: Path) -> None:
        folder.mkdir()
        payload, data = prepare(folder)
        machine = payload.run(scenario.read_text(), data, timeout=PATIENCE, **options)
        Told.of(machine).save(folder / "told")

    return Told.load(images.once(folder, live) / "told")
