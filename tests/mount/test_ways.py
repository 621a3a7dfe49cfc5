"""Which way a mount takes, and the kernel's NBD devices."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cowcloop.mount.errors import MountError
from cowcloop.mount.ways import WAYS, base, choose, fuse, named, nbd
from cowcloop.server import nbd_client
from cowcloop.server.address import ublk
from cowcloop.server.messages import Message
from support.programs import cowcloop, program, refused
from support.server import listed


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with ublk, loop devices, and the kernel's NBD devices 0, 2 and 10; 0 is in use."""
    blocks = tmp_path / "block"
    for name in ("nbd0", "nbd2", "nbd10", "sda"):
        (blocks / name).mkdir(parents=True)
    (blocks / "nbd0/pid").write_text("1\n")
    loop = tmp_path / "loop-control"
    loop.touch()
    monkeypatch.setattr(nbd_client, "BLOCK_DEVICES", blocks)
    monkeypatch.setattr(fuse, "_LOOP", loop)
    monkeypatch.setattr(ublk, "_CONTROL", loop)
    for module in (base, fuse, nbd, ublk):
        monkeypatch.setattr(module, "load", lambda name, sign: False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return blocks


def chosen(via: str | None = None) -> str:
    """The name of the way that is chosen, which says why it is not another."""
    said: list[Message] = []
    way = choose(via, said.append)
    assert all(message.level == "debug" for message in said)
    assert all(message.text.startswith("not via ") for message in said)
    return way.name


def test_a_free_device_is_found(machine: Path) -> None:
    assert nbd.free_device() == "/dev/nbd2"
    assert nbd.free_device(frozenset({"/dev/nbd2"})) == "/dev/nbd10"
    for name in ("nbd2", "nbd10"):
        (machine / name / "pid").write_text("2\n")
    with pytest.raises(MountError, match=r"all 3 .* in use"):
        nbd.free_device()


def test_the_first_way_that_there_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen() == "ublk"
    for via in WAYS:
        assert chosen(via) == via
    monkeypatch.setattr(ublk, "_CONTROL", machine / "none")
    assert chosen() == "fuse"
    with pytest.raises(MountError, match="modprobe ublk_drv"):
        chosen("ublk")
    monkeypatch.setattr(fuse, "_LOOP", machine / "none")
    assert chosen() == "fuse2fs"
    with pytest.raises(MountError, match="modprobe loop"):
        chosen("fuse")


def test_a_module_is_loaded_where_that_is_allowed(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(name: str, sign: Path) -> bool:
        loaded.append(name)
        (machine / "nbd1").mkdir(exist_ok=True)
        return True

    monkeypatch.setattr(ublk, "_CONTROL", machine / "none")
    monkeypatch.setattr(fuse, "_LOOP", machine / "none")
    monkeypatch.setattr(nbd_client, "BLOCK_DEVICES", machine / "none")
    for module in (base, fuse, nbd, ublk):
        monkeypatch.setattr(module, "load", load)
    # Loaded, but this user may not use what is there.
    assert chosen() == "fuse"
    with pytest.raises(MountError, match="modprobe nbd"):
        nbd.free_device()
    assert loaded == ["ublk_drv", "loop", "nbd"]


def test_without_root(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert chosen() == "fuse2fs"
    for via in ("nbd", "fuse", "ublk"):
        with pytest.raises(MountError, match="needs root"):
            chosen(via)


def test_a_user_without_mtab(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be mounted, and never unmounted."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(base, "_FUSE", machine)
    monkeypatch.setattr(base, "_MTAB", machine / "mtab")
    with pytest.raises(MountError, match="ln -s /proc/self/mounts"):
        named("fuse2fs").check(writes=False)
    (machine / "mtab").touch()
    named("fuse2fs").check(writes=False)


@pytest.mark.usefixtures("root")
def test_no_kernel_nbd(chicken: Path, tmp_path: Path) -> None:
    if list(Path("/sys/block").glob("nbd*")):
        pytest.skip("this kernel has NBD devices")
    program("nbd-client", "nbd-client")
    refused("mount", "--via", "nbd", chicken, tmp_path, says=("modprobe nbd", "--via fuse"))
    for device in ("/dev/nbd77", "/dev/null"):
        refused("mount", "--device", device, chicken, tmp_path, says=Path(device).name)
    assert listed() == []


# A stand-in for a kernel with NBD: a loop device over nbdfuse, another client, is the device.
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
