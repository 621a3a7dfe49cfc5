"""More forms of the measured image, made when a work first wants them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from benches import debian, mounts
from benches.material import BLOCK, Material, whole
from benches.programs import COWCLOOP, program, run

_ARCHIVE_BYTES = 200_000_000
# What an archive takes in a file system, beyond its files' bytes.
_ROOM = 128 << 20
# Where it is not the best by itself: that of the other images.
_LEVELS = {"deflate": ",level=9"}


def erofs(material: Material, compressor: str) -> Path:
    """The image as a file in an EROFS, compressed 64 KiB at a time."""
    target = material.raw.with_suffix(f".erofs-{compressor}")
    if not target.exists():
        make = _mkfs_erofs(compressor)
        with tempfile.TemporaryDirectory(dir=material.folder) as stage:
            os.link(material.raw, Path(stage, material.raw.name))
            temporary = target.with_suffix(".new")
            how = f"-z{compressor}{_LEVELS.get(compressor, '')}"
            run([*make, "--quiet", how, f"-C{BLOCK}", temporary, stage])
            temporary.rename(target)
    target.read_bytes()
    return target


def _mkfs_erofs(compressor: str) -> list[str]:
    """This machine's or, where that is too old for the compressor, Debian 13's."""
    own = [program("mkfs.erofs")]
    told = subprocess.run([*own, "--help"], capture_output=True, text=True, check=False)
    if compressor in told.stdout + told.stderr:
        return own
    return debian.command(debian.unpacked("erofs-utils"), "usr/bin/mkfs.erofs")


def first_file(material: Material) -> Path:
    """A file of the image, within its tree."""
    with mounts.plain(material.raw) as place:
        return files_below(place.tree)[0]


def archive(material: Material, scratch: Path) -> Path:
    """A tar archive of the image's first files, of some 200 MB."""
    target = scratch / "files.tar"
    if target.exists():
        return target
    with mounts.plain(material.raw) as place:
        chosen, left = [], _ARCHIVE_BYTES
        for file in files_below(place.tree):
            left -= (place.tree / file).stat().st_size
            if left < 0:
                break
            chosen.append(os.fsencode(file))
        command = ["tar", "-cf", str(target), "-C", str(place.tree), "--null", "-T", "-"]
        subprocess.run(command, input=b"\0".join(chosen), check=True)
    return target


def roomy(material: Material) -> tuple[Path, Path]:
    """An empty file system into which the archive goes: plain, and compressed."""
    size = min(material.size, _ARCHIVE_BYTES) + _ROOM
    raw = material.folder / f"room-{size >> 20}M.raw"
    cloop = raw.with_suffix(".cloop")
    if not raw.exists():
        temporary = raw.with_suffix(".new")
        with temporary.open("wb") as image:
            image.truncate(size)
        run(["mke2fs", "-q", "-F", "-t", "ext2", "-b", "4096", "-m", "0", "-i", "8192", temporary])
        temporary.rename(raw)
    if not cloop.exists():
        whole(cloop, [COWCLOOP, "create", "-q", raw])
    return raw, cloop


def files_below(tree: Path) -> list[Path]:
    """The files below a directory, always in the same order."""
    found = []
    for folder, _, names in os.walk(tree):
        found += [Path(folder, name).relative_to(tree) for name in names]
    return sorted(found)
