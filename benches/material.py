"""The image that is measured, made from this machine's /usr, and its forms for the peers.

They are kept from one run to the next in ``$XDG_CACHE_HOME/cowcloop-bench``.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches.programs import run

BLOCK = 64 << 10
PAGE = 4096
# Of the image's size; the rest is for the file system's own tables.
_FILL = 0.88
_LARGEST_FILE = 32 << 20


@dataclass(frozen=True)
class Material:
    """One device in all its forms; ``folder`` has them, and other images."""

    folder: Path
    raw: Path
    cloop: Path
    squashfs: Path
    size: int

    @property
    def blocks(self) -> int:
        """Compressed blocks of 64 KiB."""
        return self.size // BLOCK

    @contextmanager
    def written(self) -> Iterator[Path]:
        """A folder on the same disk for what one measurement writes; it is removed afterwards."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="written-") as folder:
            yield Path(folder)


def cache_folder() -> Path:
    """The folder that keeps files which take long to make."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "cowcloop-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def memory_folder() -> str | None:
    """A file system in memory, so that output files touch no disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def prepare(size: int) -> Material:
    """The image of ``size`` bytes, made now or taken from the cache."""
    folder = cache_folder()
    name = f"usr-{size >> 20}M"
    made = Material(
        folder=folder,
        raw=folder / f"{name}.raw",
        cloop=folder / f"{name}.cloop",
        squashfs=folder / f"{name}.squashfs",
        size=size,
    )
    if not made.raw.exists():
        _say(f"making an ext2 image of {size >> 20} MiB from /usr")
        _make_raw(made.raw, size)
    if not made.cloop.exists():
        _say("compressing it with create_compressed_fs")
        whole(made.cloop, ["create_compressed_fs", "-q", "-B", str(BLOCK), made.raw])
    if not made.squashfs.exists():
        _say("and with mksquashfs")
        temporary = made.squashfs.with_suffix(".new")
        options = ["-comp", "gzip", "-b", str(BLOCK), "-noappend", "-quiet", "-no-progress"]
        run(["mksquashfs", made.raw, temporary, *options])
        temporary.rename(made.squashfs)
    # Into the page cache: the program is measured, not the disk.
    for file in (made.raw, made.cloop, made.squashfs):
        file.read_bytes()
    return made


def offsets(material: Material, seed: int = 1) -> list[int]:
    """A page in each block, the blocks in random order: every block is touched just once."""
    order = random.Random(seed)
    blocks = list(range(material.blocks))
    order.shuffle(blocks)
    return [block * BLOCK + PAGE * order.randrange(BLOCK // PAGE) for block in blocks]


def write_io_log(path: Path, device: str, material: Material) -> None:
    """The reads of `offsets` as fio's log, on what fio calls ``device``."""
    lines = [f"{device} read {offset} {PAGE}" for offset in offsets(material)]
    lines = ["fio version 2 iolog", f"{device} add", f"{device} open", *lines, f"{device} close"]
    path.write_text("\n".join(lines) + "\n")


def _make_raw(raw: Path, size: int) -> None:
    """A file system with an even sample of all files below /usr."""
    files = list(_files(Path("/usr")))
    total = sum(length for _, length in files)
    room = size * _FILL
    keep = min(1.0, room / total) * (1 << 32)
    with tempfile.TemporaryDirectory(dir=raw.parent) as stage:
        count = 0
        # The same files each time, whatever order the directories have.
        for file, length in sorted(files):
            if zlib.crc32(str(file).encode()) >= keep or length > room:
                continue
            room -= length
            target = Path(stage, *file.parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            count += 1
        temporary = raw.with_suffix(".new")
        with temporary.open("wb") as image:
            image.truncate(size)
        inodes = str(count * 2 + 1000)
        run(["mke2fs", "-q", "-F", "-t", "ext2", "-b", "4096", "-m", "0", "-N", inodes,
             "-d", stage, temporary])  # fmt: skip
        temporary.rename(raw)


def _files(root: Path) -> list[tuple[Path, int]]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                length = -(-path.stat().st_size // PAGE) * PAGE
                if 0 < length <= _LARGEST_FILE:
                    found.append((path, length))
    return found


def whole(target: Path, command: list[str | Path]) -> None:
    """Have a command make a file, whose name is its last word, whole or not at all."""
    temporary = target.with_suffix(".new")
    run([*command, temporary])
    temporary.rename(target)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
