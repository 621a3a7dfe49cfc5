"""umount, and what happens to a mount meanwhile: crashes, sync, other mounts, a full disk."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cowcloop import server
from cowcloop.server import ServeOptions
from support import users
from support.mounts import WAYS, kill, mkfs
from support.programs import PATIENCE, cowcloop, cowcloop_path, one_line, refused, run
from support.server import listed, wait_until

pytestmark = pytest.mark.usefixtures("fuse", "loop")


def test_a_mount_that_another_user_may_have_made() -> None:
    users.require()
    umount = users.as_nobody(cowcloop_path(), "umount", "/proc")
    done = run(*umount, env={"XDG_RUNTIME_DIR": ""}, expect=1)
    one_line(done.stderr.decode(), ("not a mount of this user's", "sudo"))


@pytest.mark.parametrize("via", WAYS)
def test_a_busy_mount_stays(
    via: str, chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    cowcloop("mount", "--via", via, chicken, tmp_path / "c", place)
    with (place / "open").open("w") as file:
        file.write("before")
        refused("umount", place, says=("busy", "nothing was changed"))
        file.write(" and after")
    assert (place / "open").read_text() == "before and after"
    cowcloop("umount", place)
    assert left() == []


def test_detach_leaves_a_mount_alone(
    chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    cowcloop("mount", chicken, tmp_path / "c", place)
    uri = listed()[0]["uri"]
    for target in (uri, str(place), "--all"):
        refused("detach", target, says=("mounted on", "cowcloop umount"))
    (place / "x").write_text("x")
    for target in (uri, str(place), "--all"):
        cowcloop("sync", target)
    # Unmounted by hand, it is a device like any other.
    run("umount", place)
    cowcloop("detach", uri)
    assert left() == []
    cowcloop("mount", chicken, tmp_path / "c", place)
    assert (place / "x").read_text() == "x"
    run("umount", place)
    cowcloop("umount", place)
    assert left() == []


def test_sync_reaches_through_the_mount(chicken: Path, place: Path, tmp_path: Path) -> None:
    """What was written just now, and is in the kernel's memory, is in the cowfile then."""
    cow = tmp_path / "c"
    cowcloop("mount", chicken, cow, place)
    noise = random.Random(2).randbytes(50_000)
    (place / "new").write_bytes(noise)
    cowcloop("sync", place)
    assert noise[10_000:11_000] in cow.read_bytes()
    cowcloop("umount", place)


def test_another_mount_over_it(
    chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    run("mount", "-t", "tmpfs", "tmpfs", place)
    (place / "below").touch()
    cowcloop("mount", chicken, tmp_path / "c", place)
    run("mount", "-t", "tmpfs", "tmpfs", place)
    try:
        refused("umount", place, says="another mount lies over it")
    finally:
        run("umount", place)
    (place / "new").write_text("x")
    cowcloop("umount", place)
    assert (place / "below").exists()
    # One that fails does not touch what was there.
    refused("mount", chicken, place, "-o", "nonsense")
    assert (place / "below").exists()
    run("umount", place)
    assert left() == []


@pytest.mark.parametrize(
    ("via", "killed"),
    [
        ("fuse", ["cowcloopd"]),
        ("fuse2fs", ["cowcloopd"]),
        ("fuse2fs", ["fuse2fs"]),
        ("fuse2fs", ["fuse2fs", "cowcloopd"]),
    ],
)
def test_after_a_crash(
    via: str,
    killed: list[str],
    chicken: Path,
    place: Path,
    tmp_path: Path,
    runtime: Path,
    left: Callable[[], list[str]],
) -> None:
    """What a crash leaves is cleaned up, what was synced is there, and the next mount works."""
    cow = tmp_path / "c"
    cowcloop("mount", "--via", via, chicken, cow, place)
    (place / "kept").write_text("synced")
    if via == "fuse":
        cowcloop("sync", place)
        (place / "lost").write_text("perhaps")
    for name in killed:
        kill(name, runtime, tmp_path)
    # To look at it changes nothing.
    assert "has ended: cowcloop umount" in listed()[0]["error"]
    assert b"broken" in cowcloop("list").stdout
    if via == "fuse":
        refused("detach", "--all", says="cowcloop umount")
    line = cowcloop("umount", place).stderr.decode()
    one_line(line, ("warning", "crash", "lost"))
    assert left() == []
    assert list(place.iterdir()) == []
    cowcloop("mount", chicken, cow, place)
    if via == "fuse":
        assert (place / "kept").read_text() == "synced"
    cowcloop("umount", place)
    assert left() == []


def test_a_server_that_died_before_it_was_mounted_from(
    chicken: Path, tmp_path: Path, runtime: Path, left: Callable[[], list[str]]
) -> None:
    """The next command takes away what it left, its file system among it."""
    served = replace(ServeOptions.of(chicken, [tmp_path / "c"]), as_file=True)
    entry = server.attach(served, report=lambda message: None)
    assert entry.record is not None
    assert Path(entry.record.uri).stat().st_size > 0
    kill("cowcloopd", runtime)
    assert listed() == []
    assert left() == []


def test_a_busy_mount_after_a_crash(
    chicken: Path, place: Path, tmp_path: Path, runtime: Path, left: Callable[[], list[str]]
) -> None:
    cowcloop("mount", chicken, tmp_path / "c", place)
    handle = os.open(place, os.O_RDONLY)
    try:
        kill("cowcloopd", runtime)
        refused("umount", place, says="busy")
        assert b"broken" in cowcloop("list").stdout
        refused("mount", chicken, place, says="umount")
    finally:
        os.close(handle)
    cowcloop("umount", place)
    assert left() == []


def test_umount_names_a_stopped_server(
    chicken: Path, place: Path, left: Callable[[], list[str]]
) -> None:
    cowcloop("mount", chicken, place)
    pid = listed()[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it to be stopped")
    umount = subprocess.Popen([cowcloop_path(), "umount", place], stderr=subprocess.PIPE)
    try:
        assert umount.stderr is not None
        assert select.select([umount.stderr], [], [], 30)[0], "nothing is said"
    finally:
        os.kill(pid, signal.SIGCONT)
        said = umount.communicate(timeout=PATIENCE)[1].decode().splitlines()
    assert f"its server (process {pid}) is stopped" in said[0]
    assert umount.returncode == 0
    assert left() == []


@pytest.mark.parametrize("via", WAYS)
def test_a_full_disk_is_told(
    via: str, place: Path, tmp_path: Path, tiny_tmpfs: Path, left: Callable[[], list[str]]
) -> None:
    """umount says that everything is on disk only when it is."""
    disk = mkfs(tmp_path / "disk", "ext2", kib=32768)
    cowcloop("mount", "--via", via, disk, tiny_tmpfs / "c", place)
    try:
        (place / "big").write_bytes(random.Random(3).randbytes(16 << 20))
    except OSError:
        assert via == "fuse2fs"
    line = refused("umount", place, says="not everything could be written")
    if via == "fuse":
        # The kernel has told it; what is told once more is not what the kernel says.
        assert "make room" in line
        line = refused("umount", place, says=("not everything could be written", "still mounted"))
        assert "writes failed" in line
    if left():
        done = cowcloop("umount", place, "--discard")
        one_line(done.stderr.decode(), ("warning", "unmounted", "lost"))
    assert left() == []


def test_a_full_disk_is_told_after_a_sync(
    place: Path, tmp_path: Path, tiny_tmpfs: Path, left: Callable[[], list[str]]
) -> None:
    """The kernel tells of it once: to the user's own sync. The server remembers, and can count."""
    disk, cow = mkfs(tmp_path / "disk", "ext2", kib=32768), tiny_tmpfs / "c"
    done = cowcloop("mount", "--via", "fuse", disk, cow, place)
    one_line(done.stderr.decode(), ("warning", "MiB are free", "make room"))
    content = random.Random(3).randbytes(16 << 20)
    (place / "big").write_bytes(content)
    assert run("sync", "-f", place, expect=1).stderr
    run("sync", "-f", place)
    (device,) = listed()
    assert device["cowfiles"][0]["failures"] > 0
    assert "writes failed" in cowcloop("list", env={"COLUMNS": "400"}).stdout.decode()
    line = refused("umount", place, says=("not everything could be written", "--discard"))
    assert str(cow) in line
    # It can be copied elsewhere still, which is the remedy.
    assert (place / "big").read_bytes() == content
    done = cowcloop("umount", place, "--discard")
    one_line(done.stderr.decode(), ("warning", "what could not be written is lost"))
    assert left() == []


def test_in_another_namespace(
    chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """What is mounted where we do not see it is not taken away from there."""
    script = '"$1" mount "$2" "$3" "$4" && echo && read line && "$1" umount -q "$4"'
    words = [cowcloop_path(), str(chicken), str(tmp_path / "c"), str(place)]
    process = subprocess.Popen(
        [*users.own_mounts(), "bash", "-c", script, "bash", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    refused("umount", place, says="another mount namespace")
    process.communicate(b"go on\n", timeout=PATIENCE)
    assert process.returncode == 0
    assert left() == []
