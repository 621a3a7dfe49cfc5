"""Which way a mount takes, and the kernel's NBD devices."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cowcloop.mount import ways
from cowcloop.mount.errors import MountError
from support.programs import cowcloop, program, refused
from support.server import listed


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with loop devices and the kernel's NBD devices 0, 2 and 10; 0 is in use."""
    blocks = tmp_path / "block"
    for name in ("nbd0", "nbd2", "nbd10", "sda"):
        (blocks / name).mkdir(parents=True)
    (blocks / "nbd0/pid").write_text("1\n")
    loop = tmp_path / "loop-control"
    loop.touch()
    monkeypatch.setattr(ways, "_BLOCK_DEVICES", blocks)
    monkeypatch.setattr(ways, "_LOOP", loop)
    monkeypatch.setattr(ways, "find_program", lambda name, package: f"/bin/{name}")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return blocks


def test_a_free_device_is_found(machine: Path) -> None:
    assert ways.free_nbd() == "/dev/nbd2"
    assert ways.free_nbd(frozenset({"/dev/nbd2"})) == "/dev/nbd10"
    for name in ("nbd2", "nbd10"):
        (machine / name / "pid").write_text("2\n")
    with pytest.raises(MountError, match=r"all 3 .* in use"):
        ways.free_nbd()


def test_the_first_way_that_there_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ways.choose(None) == "nbd"
    assert ways.choose("fuse") == "fuse"
    monkeypatch.setattr(ways, "_BLOCK_DEVICES", machine / "none")
    assert ways.choose(None) == "fuse"
    monkeypatch.setattr(ways, "_LOOP", machine / "none")
    assert ways.choose(None) == "fuse2fs"
    with pytest.raises(MountError, match="modprobe loop"):
        ways.choose("fuse")


def test_without_root(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert ways.choose(None) == "fuse2fs"
    for via in ("nbd", "fuse"):
        with pytest.raises(MountError, match="needs root"):
            ways.choose(via)


def test_a_user_without_mtab(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be mounted, and never unmounted."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(ways, "check_programs", lambda *programs: None)
    monkeypatch.setattr(ways, "_FUSE", machine)
    monkeypatch.setattr(ways, "_MTAB", machine / "mtab")
    with pytest.raises(MountError, match="ln -s /proc/self/mounts"):
        ways.check("fuse2fs", writes=False)
    (machine / "mtab").touch()
    ways.check("fuse2fs", writes=False)


@pytest.mark.usefixtures("root")
def test_no_kernel_nbd(chicken: Path, tmp_path: Path) -> None:
    if list(Path("/sys/block").glob("nbd*")):
        pytest.skip("this kernel has NBD devices")
    program("nbd-client", "nbd-client")
    refused("mount", "--via", "nbd", chicken, tmp_path, says=("modprobe nbd", "--via fuse"))
    for device in ("/dev/nbd77", "/dev/null"):
        refused("mount", "--device", device, chicken, tmp_path, says=Path(device).name)
    assert listed() == []


# A stand-in for a kernel with NBD: a loop device over nbdfuse is the block device.
_NBD_CLIENT = """#!/bin/bash
set -eu
echo "$*" >> "$FAKE/calls"
case $1 in
-unix)
    nbdfuse "$FAKE/disk/device" --unix "$2" &
    until test -e "$FAKE/disk/device"; do sleep 0.02; done
    losetup "$3" "$FAKE/disk/device" ;;
-d)
    losetup -d "$2"
    until umount "$FAKE/disk"; do sleep 0.02; done ;;
esac > "$FAKE/log" 2>&1
"""


@pytest.mark.usefixtures("root", "loop", "fuse")
@pytest.mark.parametrize("fails", [False, True])
def test_a_kernel_device(
    fails: bool, chicken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connected, mounted, unmounted and disconnected, with a stand-in for the kernel's part."""
    fake = tmp_path / "fake"
    (fake / "disk").mkdir(parents=True)
    (fake / "nbd-client").write_text(_NBD_CLIENT)
    (fake / "nbd-client").chmod(0o755)
    path = f"{fake}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin:/sbin"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("FAKE", str(fake))
    # One that no other test takes.
    device = f"{tmp_path}/nbd"
    os.mknod(device, 0o600 | stat.S_IFBLK, os.makedev(7, 200 + os.getpid() % 1000))
    cow, place = tmp_path / "c", tmp_path / "mnt"
    place.mkdir()
    if fails:
        refused("mount", "--device", device, chicken, cow, place, "-o", "nonsense", says="chicken")
    else:
        cowcloop("mount", "--device", device, chicken, cow, place)
        (listed_device,) = listed()
        assert (listed_device["device"], listed_device["via"]) == (device, "nbd")
        (place / "new").write_text("x")
        cowcloop("umount", place)
    assert listed() == []
    calls = (fake / "calls").read_text().splitlines()
    assert calls[0].startswith("-unix ")
    assert calls[1:] == [f"-d {device}"]
    if not fails:
        cowcloop("mount", "--via", "fuse", chicken, cow, place)
        assert (place / "new").read_text() == "x"
        cowcloop("umount", place)
