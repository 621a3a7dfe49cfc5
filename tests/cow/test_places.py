"""Cowfiles where a file system lacks something: holes, or long files."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cloop, cowfile, nbdclient
from support.programs import PATIENCE, cowcloop, cowcloop_path, one_line, program, refused, run
from support.server import attach, wait_until

PLAIN = cloop.sample(6 << 20, 4096)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, 4096))
    return path


def _sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.write(b"base" * 1024)
        file.truncate(size)
    return path


@pytest.fixture
def exfat(root: None, loop: None, fuse: None, tmp_path: Path) -> Iterator[Path]:
    """A stick with exFAT: no holes can be punched there."""
    mkfs, mount = program("mkfs.exfat", "exfatprogs"), program("mount.exfat-fuse", "exfat-fuse")
    stick, folder = _sparse(tmp_path / "stick", 64 << 20), tmp_path / "exfat"
    folder.mkdir()
    run(mkfs, stick)
    device = run("losetup", "-f", "--show", stick).stdout.decode().strip()
    run(mount, device, folder)
    yield folder
    wait_until(lambda: run("umount", folder, expect=None).returncode == 0, "umount")
    wait_until(lambda: run("losetup", "-d", device, expect=None).returncode == 0, "losetup")


@pytest.fixture
def ext2_with_small_blocks(root: None, loop: None, tmp_path: Path) -> Iterator[Path]:
    """A file system that takes files of 16 GiB and a bit at most."""
    disk, folder = _sparse(tmp_path / "small.ext2", 8 << 20), tmp_path / "small"
    folder.mkdir()
    run(program("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext2", "-b", "1024", disk)
    run("mount", "-o", "loop", disk, folder)
    yield folder
    wait_until(lambda: run("umount", folder, expect=None).returncode == 0, "umount")


def _exercise(image: Path, cow: Path) -> None:
    """Writes, zeros and discards; then all of it is there, and the original would take the file."""
    want = bytearray(PLAIN)
    rng = random.Random(5)
    handle = nbdclient.connect(attach(image, cow))
    for number in range(120):
        at, length = rng.randrange(0, len(PLAIN) - 70_000), rng.randrange(1, 70_000)
        if number % 3 == 0:
            data = rng.randbytes(length)
            handle.pwrite(data, at)
        else:
            data = bytes(length)
            (handle.zero if number % 3 == 1 else handle.trim)(length, at)
        if number % 3 == 2:
            # What a discard leaves is a matter of the device; whole blocks are zeros here.
            data = handle.pread(length, at)
        want[at : at + length] = data
    handle.flush()
    assert handle.pread(len(want), 0) == want
    handle.shutdown()
    cowcloop("detach", "--all")
    assert cowfile.original_refuses(cow, PLAIN) is None
    assert cowcloop("extract", image, cow, "-").stdout == want


def test_a_file_system_without_holes(image: Path, exfat: Path) -> None:
    handle = os.open(exfat / "try", os.O_RDWR | os.O_CREAT)
    with pytest.raises(OSError, match=r"[Nn]ot supported"):
        _punch(handle)
    os.close(handle)
    _exercise(image, exfat / "c.cow")


def _punch(handle: int) -> None:
    """FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, which Python's os has not."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(handle, 3, ctypes.c_long(0), ctypes.c_long(4096)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def test_a_tmpfs(image: Path, root: None, tmp_path: Path) -> None:
    folder = tmp_path / "ram"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder)
    try:
        _exercise(image, folder / "c.cow")
    finally:
        run("umount", folder)


def test_a_file_must_not_become_so_long(ext2_with_small_blocks: Path, tmp_path: Path) -> None:
    """As on FAT, with a limit of 16 GiB: told when it is attached, not by a write much later."""
    long, short = _sparse(tmp_path / "long", 20 << 30), _sparse(tmp_path / "short", 16 << 30)
    cow = ext2_with_small_blocks / "c"
    for command in ("attach", "serve"):
        refused(command, long, cow, says=("c: ", "FAT", "another file system"))
    assert sorted(path.name for path in cow.parent.iterdir()) == ["lost+found"]
    handle = nbdclient.connect(attach(short, cow))
    handle.pwrite(b"the end", (16 << 30) - 7)
    handle.shutdown()
    cowcloop("detach", "--all")
    # One that was made elsewhere, and came here by a copy that knows holes.
    cowcloop("detach", attach(long, tmp_path / "made"))
    run("cp", "--sparse=always", tmp_path / "made", cow.with_name("moved"))
    refused("attach", long, cow.with_name("moved"), says=("moved", "FAT"))


def test_a_limit_to_the_length_of_files(image: Path, tmp_path: Path) -> None:
    """`ulimit -f`: a server that was killed by it would be of no use."""
    limited = program("prlimit", "util-linux"), f"--fsize={4 << 20}"
    done = run(*limited, cowcloop_path(), "attach", image, tmp_path / "c", expect=1)
    one_line(done.stderr.decode(), ("c: ", f"{4 << 20} bytes", "ulimit -f"))
    assert not (tmp_path / "c").exists()


def test_a_limit_to_the_length_of_outputs(image: Path, tmp_path: Path) -> None:
    limited = program("prlimit", "util-linux"), f"--fsize={4 << 20}", cowcloop_path()
    raw = tmp_path / "raw"
    raw.write_bytes(PLAIN)
    for command in (("extract", image), ("create", raw, "--format", "v4", "--codec", "none")):
        done = run(*limited, *command, tmp_path / "out", expect=1)
        one_line(done.stderr.decode(), ("out: ", "File too large", f"{4 << 20} bytes", "ulimit -f"))
        assert not (tmp_path / "out").exists()


def _check_rename(folder: Path) -> None:
    """fusefat 0.3, of Debian 13, refuses what every file system does."""
    for name in ("new", "old"):
        (folder / name).touch()
    try:
        (folder / "new").rename(folder / "old")
    except FileExistsError:
        pytest.skip("this fusefat does not let a rename replace a file")


def test_the_cost_without_holes_is_told(
    image: Path, root: None, fuse: None, tmp_path: Path
) -> None:
    """FAT itself, by a FUSE driver that is too frail for more than this."""
    fusefat, mkfs = program("fusefat", "fusefat"), program("mkfs.vfat", "dosfstools")
    stick, folder = _sparse(tmp_path / "stick", 32 << 20), tmp_path / "fat"
    folder.mkdir()
    run(mkfs, stick)
    subprocess.run(
        [fusefat, "-o", "rw+", stick, folder], check=True, capture_output=True, timeout=PATIENCE
    )
    try:
        wait_until(lambda: os.path.ismount(folder), "fusefat")
        time.sleep(0.1)
        _check_rename(folder)
        done = cowcloop("attach", image, folder / "c.cow", expect=None)
        warning = done.stderr.decode().splitlines()[0]
        one_line(warning, ("warning", "c.cow", "no holes", str(len(PLAIN))))
        cowcloop("detach", "--all")
        done = cowcloop("attach", "-q", image, tmp_path / "elsewhere.cow")
        assert done.stderr == b""
    finally:
        cowcloop("detach", "--all")
        wait_until(lambda: run("umount", folder, expect=None).returncode == 0, "umount")
