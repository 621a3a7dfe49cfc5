"""One life of the guest that many tests look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
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
