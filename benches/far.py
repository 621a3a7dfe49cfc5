"""What a web server has of the measured image, and what is read of it.

Beside the image lie its trace and its digest tree, and the same files as a squashfs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import cowcloop

from benches import material, mounts
from benches.forms import files_below
from benches.material import BLOCK, Material
from benches.programs import run

#: Of the device, the files that are read. With all of the blocks in which they lie that is some
#: 6 %, as much as the start of a container reads of its image (Harter and others, Slacker, FAST
#: 2016).
_SHARE = 0.03


@dataclass(frozen=True)
class Far:
    """The folder of the web server, and the files of the image that are read, in this order."""

    folder: Path
    files: list[Path]
    digest: str

    @property
    def image(self) -> Path:
        """The compressed image; its trace and its digest tree lie beside it."""
        return self.folder / "image.cloop"

    @property
    def squashfs(self) -> Path:
        """The files of the image."""
        return self.folder / "files.squashfs"

    def read(self, tree: Path) -> None:
        """Read the files of a mounted image."""
        for file in self.files:
            (tree / file).read_bytes()

    def blocks(self) -> list[int]:
        """The blocks of the image in the trace, in its order."""
        found: list[int] = []
        for line in self.image.with_name("image.cloop.trace").read_text().splitlines()[1:]:
            run_of = json.loads(line)
            found += range(run_of["block"], run_of["block"] + run_of["count"])
        return found


def prepare(measured: Material) -> Far:
    """Made now, or taken from the cache; it takes a mount."""
    folder = measured.folder / f"far-{measured.size >> 20}M"
    if not folder.exists():
        stage = folder.with_suffix(".new")
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
        _make(measured, stage)
        stage.rename(folder)
    made = json.loads((folder / "made.json").read_text())
    # Into the page cache, as the images of all works are.
    for file in folder.iterdir():
        file.read_bytes()
    return Far(folder, [Path(name) for name in made["files"]], made["digest"])


def _make(measured: Material, folder: Path) -> None:
    made = Far(folder, [], "")
    os.link(measured.cloop, made.image)
    with mounts.plain(measured.raw) as place:
        files = _chosen(place.tree, int(measured.size * _SHARE))
        options = ["-comp", "gzip", "-b", str(BLOCK), "-noappend", "-quiet", "-no-progress"]
        run(["mksquashfs", place.tree, made.squashfs, *options])
    trace = folder / "image.cloop.trace"
    with mounts.ours(made.image, options=["--record-trace", trace]) as place:
        Far(folder, files, "").read(place.tree)
    digest = cowcloop.digest(made.image, tree=folder / "image.cloop.verity")
    document = {"files": [str(file) for file in files], "digest": digest}
    (folder / "made.json").write_text(json.dumps(document))


def _chosen(tree: Path, most: int) -> list[Path]:
    """Directories in random order, each with all of its files, as a start reads programs."""
    by_folder: dict[Path, list[Path]] = {}
    for file in files_below(tree):
        by_folder.setdefault(file.parent, []).append(file)
    folders = sorted(by_folder)
    random.Random(1).shuffle(folders)
    chosen: list[Path] = []
    for folder in folders:
        size = sum((tree / file).stat().st_size for file in by_folder[folder])
        # A single large one would be all that is read.
        if size <= min(most, material.BLOCK * 32):
            chosen += sorted(by_folder[folder])
            most -= size
    return chosen
