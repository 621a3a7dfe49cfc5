"""Real images, made once a test session: by Debian's own tools where there are any."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from support import cloop
from support.programs import find, program, run

UUID = "5c6b6e4f-8a33-4a30-9c07-c0c100b0c0de"
FAKE_TIME = {"E2FSPROGS_FAKE_TIME": "1000000000", "SOURCE_DATE_EPOCH": "1000000000"}
#: Blocks of 1 KiB in the small filesystem.
EXT2_KIB = 6144


def once(path: Path, make: Callable[[Path], None]) -> Path:
    """``path``, made by the first of all test processes that needs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_name(path.name + ".part")
            make(part)
            part.rename(path)
    return path


def tree(folder: Path, seed: int = 3) -> None:
    """Some files as a system has them: text, noise, zeros, a deep path, many small ones."""
    rng = random.Random(seed)
    (folder / "etc").mkdir(parents=True)
    (folder / "usr/share/deep/deeper").mkdir(parents=True)
    for number in range(60):
        line = f"setting{number} = {rng.random()}\n".encode()
        (folder / "etc" / f"file{number}.conf").write_bytes(line * rng.randint(1, 60))
    (folder / "usr/noise.bin").write_bytes(rng.randbytes(900_000))
    (folder / "usr/zeros.bin").write_bytes(b"\0" * 500_000 + b"end")
    words = [rng.randbytes(4).hex() for _ in range(500)]
    text = " ".join(rng.choice(words) for _ in range(120_000))
    (folder / "usr/share/deep/deeper/words.txt").write_text(text)
    (folder / "usr/link").symlink_to("share/deep")


def make_ext2(out: Path, kib: int = EXT2_KIB) -> None:
    """The same ext2 filesystem of :func:`tree` every time."""
    folder = out.with_name(out.name + ".tree")
    shutil.rmtree(folder, ignore_errors=True)
    tree(folder)
    for path in [folder, *sorted(folder.rglob("*"))]:
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    run(
        program("mke2fs", "e2fsprogs"),
        *("-q", "-F", "-t", "ext2", "-b", "1024", "-U", UUID, "-d", folder),
        *("-E", f"hash_seed={UUID},root_owner=0:0"),
        *(out, str(kib)),
        env=FAKE_TIME,
    )
    # mke2fs copies the change times, which no program can set, from the tree.
    names = ["/", *(f"/{path.relative_to(folder)}" for path in sorted(folder.rglob("*")))]
    commands = "".join(
        f"set_inode_field {name} {stamp} {value}\n"
        for name in names
        for stamp, value in (("ctime", "@1000000000"), ("ctime_extra", "0"), ("crtime", "0"))
    )
    run(
        program("debugfs", "e2fsprogs"),
        "-w",
        "-f",
        "-",
        out,
        stdin=commands.encode(),
        env=FAKE_TIME,
    )
    shutil.rmtree(folder)


def compress(source: Path, out: Path, block_size: int = 65536, level: int = 9) -> None:
    """A V2.0 image, made by Debian's create_compressed_fs."""
    tool = program("create_compressed_fs", "cloop-utils")
    run(tool, "-q", "-B", str(block_size), "-L", str(level), source, out)


def make_chicken(source: Path, out: Path) -> None:
    """A V2.0 image by Debian's compressor; where there is none, by the tests' builder."""
    if find("create_compressed_fs"):
        compress(source, out)
    else:
        out.write_bytes(cloop.build(source.read_bytes()))


def decompress(source: Path, out: Path) -> None:
    """What Debian's extract_compressed_fs makes of an image (of 10 blocks or more)."""
    run(program("extract_compressed_fs", "cloop-utils"), source, out)


def qemu_decompress(source: Path, out: Path) -> None:
    """What qemu makes of a V2.0 image."""
    run(program("qemu-img", "qemu-utils"), "convert", "-f", "cloop", "-O", "raw", source, out)


def read_by_others(source: Path, folder: Path, *, debian: bool = True) -> dict[str, bytes]:
    """What other programs make of a V2.0 image: qemu, and Debian's where there is one."""
    readers = {"qemu": qemu_decompress}
    if debian and find("extract_compressed_fs"):
        readers["extract_compressed_fs"] = decompress
    found = {}
    for name, read in readers.items():
        out = folder / f"as-{name}-reads"
        read(source, out)
        found[name] = out.read_bytes()
        out.unlink()
    return found
