"""What cannot be mounted, and where nothing can."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mounts import WAYS, mkfs
from support.programs import PATIENCE, cowcloop, cowcloop_path, one_line, program, refused, run
from support.server import listed

pytestmark = pytest.mark.usefixtures("fuse", "loop")


def test_what_cannot_be_mounted(
    chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """One line each, and nothing left over."""
    zeros = tmp_path / "zeros"
    zeros.write_bytes(bytes(1 << 20))
    refused("mount", zeros, place, says=("zeros", "no file system"))
    refused("mount", chicken, place, "--partition", "1", says=("partition 1", "no partition table"))
    swap = tmp_path / "swap"
    swap.write_bytes(bytes(1 << 20))
    run(program("mkswap", "util-linux"), swap)
    refused("mount", swap, place, says=("holds swap", "no file system"))
    fat = tmp_path / "fat"
    fat.write_bytes(bytes(1 << 20))
    run(program("mkfs.vfat", "dosfstools"), fat)
    if "vfat" not in Path("/proc/filesystems").read_text():
        refused("mount", fat, place, says=("cannot mount vfat", "modprobe vfat"))
    program("fuse2fs", "fuse2fs")
    refused("mount", "--via", "fuse2fs", fat, place, says=("vfat", "ext2, ext3 and ext4"))
    # A superblock whose inode count cannot be.
    broken = mkfs(tmp_path / "broken", "ext2")
    with broken.open("r+b") as file:
        file.seek(1024)
        file.write(b"\xff\xff\xff\xff")
    for via in WAYS:
        refused("mount", "--via", via, "--read-only", broken, place, says="broken")
    refused("mount", tmp_path / "none", place, says=("none", "No such file"))
    options = ("-o", "nonsense", "-o", "noexec,foo=bar")
    refused("mount", chicken, place, *options, says=("chicken", "-o nonsense,noexec,foo=bar"))
    cowcloop("mount", chicken, place, "-o", "noexec")
    cowcloop("umount", place)
    assert left() == []
    assert list(place.iterdir()) == []


def test_what_is_no_place_to_mount(
    chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    file = tmp_path / "file"
    file.touch()
    refused("mount", chicken, file, says=("file", "not a directory"))
    refused("mount", chicken, tmp_path / "none", says=("none", "does not exist"))
    refused("umount", place, says="nothing is mounted")
    refused("umount", tmp_path / "none", says="nothing is mounted")
    refused("umount", "/proc", says="umount(8)")
    assert left() == []
    cowcloop("mount", chicken, place)
    refused("mount", chicken, ":memory:", place, says=("mnt", "umount"))
    assert len(listed()) == 1
    cowcloop("umount", place)


def test_two_at_one_place(
    chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    running = [
        subprocess.Popen(
            [cowcloop_path(), "mount", chicken, tmp_path / f"c{number}", place],
            stderr=subprocess.PIPE,
        )
        for number in range(3)
    ]
    said = [process.communicate(timeout=PATIENCE)[1].decode() for process in running]
    assert sorted(process.returncode for process in running) == [0, 1, 1], said
    assert len(listed()) == 1
    cowcloop("umount", place)
    assert left() == []


@pytest.mark.parametrize("via", WAYS)
def test_a_missing_program(
    via: str, chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """Each program that is missing is named with its package, before anything is started."""
    missing = {"fuse": "losetup", "fuse2fs": "fuse2fs"}[via]
    script = (
        "import sys, shutil\n"
        "real = shutil.which\n"
        f"shutil.which = lambda name, **more: None if name == {missing!r} else real(name, **more)\n"
        "from cowcloop.cli import main\n"
        "sys.exit(main())\n"
    )
    done = run(sys.executable, "-c", script, "mount", "--via", via, chicken, place, expect=1)
    package = {"losetup": "mount", "fuse2fs": "fuse2fs"}[missing]
    one_line(done.stderr.decode(), (f"{missing} is not installed", package))
    assert left() == []


@pytest.mark.parametrize(
    ("version", "library", "taken"),
    [
        ("1.46.2", "FUSE library version: 2.9.9", True),
        ("1.47.0", "FUSE library version: 2.9.9", True),
        ("1.47.1", "FUSE library version: 2.9.9", True),
        ("1.47.1", "FUSE library version 3.14.0", False),
        ("1.47.2", "FUSE library version 3.17.2", False),
        ("1.47.3", "FUSE library version 3.17.4", True),
        ("1.47.4", "FUSE library version 3.18.3", True),
        ("1.48", "FUSE library version 3.18.3", True),
    ],
)
def test_a_fuse2fs_that_damages_files(
    version: str,
    library: str,
    taken: bool,
    tmp_path: Path,
    chicken: Path,
    place: Path,
    left: Callable[[], list[str]],
) -> None:
    """It does not write; where it is taken, the stand-in is run, and fails."""
    stand_in = tmp_path / "bin" / "fuse2fs"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f"""#!/bin/sh
if [ "$1" != -V ]; then echo mounts nothing >&2; exit 1; fi
echo 'fuse2fs {version} (1-Jan-2025)' >&2
echo '{library}'
"""
    )
    stand_in.chmod(0o755)
    env = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
    mount = ("mount", "--via", "fuse2fs", chicken)
    words = "fuse2fs: mounts nothing" if taken else (f"fuse2fs {version}", "--read-only", "1.47.3")
    refused(*mount, tmp_path / "c", place, says=words, env=env)
    assert (tmp_path / "c").exists() is taken
    # What does not write is taken in any case.
    refused(*mount, place, says="fuse2fs: mounts nothing", env=env)
    refused(*mount, tmp_path / "c", place, "-o", "ro", says="fuse2fs: mounts nothing", env=env)
    assert left() == []


def test_a_device_of_another_way(chicken: Path, place: Path) -> None:
    for device, via in (("ublk", "nbd"), ("ublk", "fuse"), ("/dev/nbd0", "ublk")):
        done = cowcloop("mount", chicken, place, "--device", device, "--via", via, expect=2)
        one_line(done.stderr.decode(), (f"--device {Path(device).name}", f"leave out --via {via}"))


def test_a_device_of_the_way_that_is_named(chicken: Path, place: Path) -> None:
    """It is taken, if this machine has it."""
    command = ("mount", chicken, place, "--device", "ublk", "--via", "ublk")
    done = cowcloop(*command, expect=None)
    assert done.returncode in (0, 1), done.stderr
    if done.returncode == 0:
        cowcloop("umount", place)
