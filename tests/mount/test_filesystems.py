"""File systems that are not written to, or want to be before they can be read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mounts import DONE, WAYS, mkfs
from support.programs import cowcloop, one_line, program, refused, run
from support.server import listed

pytestmark = pytest.mark.usefixtures("fuse", "loop")

READ_ONLY = "unmounted; it was read-only"


def needs_kernel(kind: str) -> None:
    if kind not in Path("/proc/filesystems").read_text().split():
        pytest.skip(f"the kernel has no {kind}")


@pytest.fixture
def squashfs(tmp_path: Path) -> Path:
    needs_kernel("squashfs")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    image = tmp_path / "squashed"
    run(program("mksquashfs", "squashfs-tools"), tree, image, "-quiet", "-no-progress")
    return image


def test_one_that_is_never_written(
    squashfs: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """A cowfile means that the user wants to write: a warning says that this is in vain."""
    cow = tmp_path / "cow"
    for options in ((), ("-o", "rw")):
        done = cowcloop("mount", squashfs, cow, place, *options)
        line = one_line(done.stderr.decode(), ("warning", "squashfs", "read-only", "COW"))
        assert "cowcloop create" in line
        assert (place / "file").read_text() == "x"
        assert one_line(cowcloop("umount", place).stderr.decode()).endswith(READ_ONLY)
    for arguments in ((squashfs, cow, place, "-o", "ro"), (squashfs, place)):
        assert cowcloop("mount", *arguments).stderr == b""
        assert one_line(cowcloop("umount", place).stderr.decode()).endswith(READ_ONLY)
    assert left() == []


@pytest.fixture
def crashed_btrfs(tmp_path: Path, root: None) -> Path:
    """A btrfs with a log tree, as a crash after an fsync leaves it."""
    needs_kernel("btrfs")
    live, image, point = tmp_path / "live", tmp_path / "btrfs", tmp_path / "point"
    live.touch()
    os.truncate(live, 128 << 20)
    run(program("mkfs.btrfs", "btrfs-progs"), "-q", live)
    point.mkdir()
    run(program("mount", "mount"), "-o", "loop", live, point)
    try:
        (point / "old").write_text("old")
        run("sync", "-f", point)
        with (point / "new").open("w") as file:
            file.write("new")
            file.flush()
            os.fsync(file.fileno())
        shutil.copyfile(live, image)
    finally:
        run(program("umount", "mount"), point)
    return image


def test_a_btrfs_whose_log_was_not_replayed(
    crashed_btrfs: Path, place: Path, left: Callable[[], list[str]]
) -> None:
    done = cowcloop("mount", crashed_btrfs, place)
    one_line(done.stderr.decode(), ("warning", "btrfs", "nologreplay", "COW"))
    assert (place / "old").read_text() == "old"
    assert not (place / "new").exists()
    cowcloop("umount", place)
    # With a cowfile, in memory as well, the log is put in place.
    assert cowcloop("mount", crashed_btrfs, ":memory:", place).stderr == b""
    assert (place / "new").read_text() == "new"
    cowcloop("umount", place)
    assert left() == []


@pytest.mark.parametrize(
    ("kind", "cow", "says"),
    [
        ("jfs", None, ("jfs", ":memory:", "COW")),
        ("reiserfs", None, ("reiserfs", ":memory:")),
        ("ntfs", None, ("ntfs", ":memory:")),
        ("f2fs", None, ("f2fs", ":memory:")),
        ("jfs", ":memory:", ("jfs", "fsck.jfs", "--device")),
        ("ntfs", ":memory:", ("ntfs", "ntfsfix")),
        ("ext2", None, ("structure",)),
    ],
)
def test_what_to_do_where_the_kernel_refuses(
    kind: str,
    cow: str | None,
    says: tuple[str, ...],
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a mount(8) that says what it says of a file system that was not unmounted."""
    image = mkfs(tmp_path / "image", "ext2")
    folder = tmp_path / "bin"
    folder.mkdir()
    said = f"mount: {place}: mount(2) system call failed: Structure needs cleaning."
    for name, script in {
        "mount": f"echo '{said}' >&2; exit 32",
        "blkid": f"printf 'TYPE={kind}\\nUSAGE=filesystem\\n'",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    words = [image, place] if cow is None else [image, cow, place]
    line = refused("mount", "--via", "fuse", *words, says=("image", *says))
    if kind == "ext2":
        assert ":memory:" not in line
    assert listed() == []


@pytest.mark.parametrize("via", WAYS)
def test_a_table_of_large_sectors(
    via: str, place: Path, tmp_path: Path, root: None, left: Callable[[], list[str]]
) -> None:
    """A GPT of a disk whose sectors have 4096 bytes."""
    program("fuse2fs", "fuse2fs")
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 64 << 20)
    losetup = program("losetup", "mount")
    device = run(losetup, "-f", "--show", "-b", "4096", disk).stdout.decode().strip()
    try:
        table = b"label: gpt\nstart=512,size=20MiB\nsize=20MiB\n"
        run(
            program("sfdisk", "fdisk"), "-q", "--no-reread", "--no-tell-kernel", device, stdin=table
        )
    finally:
        run(losetup, "-d", device)
    mkfs(disk, "ext2", offset=512 * 4096)
    refused(
        "mount", disk, place, says=("--partition", "1 (ext2, 20.0 MiB)", "2 (unknown, 20.0 MiB)")
    )
    refused("mount", disk, place, "--partition", "3", says=("partition 3", "1 (ext2"))
    cowcloop("mount", "--via", via, disk, tmp_path / "cow", place, "--partition", "1")
    (place / "new").write_text("x")
    assert one_line(cowcloop("umount", place).stderr.decode()).endswith(DONE)
    cowcloop("mount", disk, tmp_path / "cow", place, "--partition", "1", "--read-only")
    assert (place / "new").read_text() == "x"
    cowcloop("umount", place)
    assert left() == []


def test_all_missing_programs_are_named(chicken: Path, place: Path) -> None:
    script = (
        "import cowcloop.programs, sys\n"
        "cowcloop.programs._SYSTEM_FOLDERS = '/nowhere'\n"
        "from cowcloop.cli import main\n"
        f"sys.exit(main(['mount', '--via', 'fuse2fs', {str(chicken)!r}, {str(place)!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PATH": "/nowhere"}, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "cowcloop: blkid, fuse2fs and fusermount3 are not installed: "
        "apt install util-linux fuse2fs fuse3\n"
    )
