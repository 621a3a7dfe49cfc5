"""What a user puts into a mounted image."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benches import forms, mounts
from benches.model import OURS, SECONDS, Contender, Work
from benches.mounts import Place
from benches.programs import run
from benches.works import Setting
from benches.works.mount import NBDFUSE, PLAIN


def works(setting: Setting) -> Iterator[Work]:
    """Unpack an archive into an empty file system; what is written goes to the images' disk."""
    material = setting.material

    def plain(raw: Path, _: Path, written: Path) -> AbstractContextManager[Place]:
        shutil.copyfile(raw, written)
        return mounts.plain(written, read_only=False)

    def ours(_: Path, cloop: Path, written: Path) -> AbstractContextManager[Place]:
        return mounts.ours(cloop, written)

    def by_nbdfuse(_: Path, cloop: Path, written: Path) -> AbstractContextManager[Place]:
        return mounts.by_nbdfuse(cloop, written)

    def contender(
        name: str, mounted: Callable[[Path, Path, Path], AbstractContextManager[Place]]
    ) -> Contender:
        def measure() -> float:
            archive = forms.archive(material, setting.scratch)
            room = forms.roomy(material)
            with material.written() as folder:
                written = folder / "written"
                with mounted(*room, written) as place:
                    # What was written before is no part of the work.
                    run(["sync", written])
                    return _unpack(archive, place)

        return Contender(name, measure)

    yield Work(
        "mount-untar",
        "In a mount, up to 200 MB unpacked by tar, and synced",
        SECONDS,
        [contender(OURS, ours), contender(PLAIN, plain), contender(NBDFUSE, by_nbdfuse)],
    )


def _unpack(archive: Path, place: Place) -> float:
    begin = time.perf_counter()
    run(["tar", "-xf", archive, "-C", place.tree])
    run(["sync", "-f", place.tree])
    # The device, too, is told to put on its disk what it was given.
    run(["sync", place.device])
    return time.perf_counter() - begin
