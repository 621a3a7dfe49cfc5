"""mount and umount: from an image and its cowfiles to a directory, and back."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import cowfile
from support.interrupted import stopped_half_way
from support.programs import ROOT, cowcloop, cowcloop_path, one_line, program, refused, run
from support.server import attach, listed, wait_until

pytestmark = pytest.mark.usefixtures("fuse", "loop")

WAYS = ["fuse", "fuse2fs"]
DONE = "unmounted; everything is on disk"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory to mount on."""
    path = tmp_path / "mnt"
    path.mkdir()
    return path


@pytest.fixture
def left(runtime: Path, tmp_path: Path) -> Callable[[], list[str]]:
    """What is left of this test's devices: entries, mounts, loop devices and programs."""

    def look() -> list[str]:
        found = [str(path) for path in (runtime / "cowcloop").glob("*")]
        table = Path("/proc/self/mountinfo").read_text(errors="replace")
        found += [line for line in table.splitlines() if str(runtime) in line]
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            if os.fsencode(runtime) in _bytes(path):
                found.append(str(path))
        for name in ("nbdkit", "nbdfuse", "fuse2fs"):
            found += [f"{name} {pid}" for pid in processes(name, runtime, tmp_path)]
        return found

    return look


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def processes(name: str, *folders: Path) -> list[int]:
    """The running programs of a name that have to do with one of the folders."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = _bytes(path).split(b"\0")
        if Path(os.fsdecode(words[0])).name == name and any(
            os.fsencode(folder) in word for folder in folders for word in words
        ):
            found.append(int(path.parent.name))
    return found


def kill(name: str, *folders: Path) -> None:
    """As a crash would: SIGKILL, and it is gone."""
    (pid,) = processes(name, *folders)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: processes(name, *folders) == [], f"the end of {name}")


def mkfs(path: Path, kind: str, *options: str, kib: int = 8192, offset: int = 0) -> Path:
    """A file system of the ext family in a file."""
    if not path.exists():
        path.touch()
        os.truncate(path, kib * 1024)
    where = [] if not offset else ["-E", f"offset={offset}"]
    mke2fs = program("mke2fs", "e2fsprogs")
    run(mke2fs, "-q", "-F", "-t", kind, *where, *options, path, f"{kib}k")
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def mounted_options(place: Path) -> str:
    """What the kernel says about a mount."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        words = line.split()
        if words[4] == str(place):
            return f"{words[5]} {words[8] if words[7] == '-' else words[7]}"
    return ""


@pytest.mark.parametrize("via", WAYS)
def test_the_next_day(
    via: str, chicken: Path, ext2: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """Written today, there tomorrow; the image as it was, and nothing left over."""
    if via == "fuse2fs":
        program("fuse2fs", "fuse2fs")
    cow, before = tmp_path / "c.cow", sha(chicken)
    done = cowcloop("mount", "--via", via, chicken, cow, place)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert cow.stat().st_mode & 0o777 == 0o600
    assert "noatime" in mounted_options(place)
    noise = random.Random(1).randbytes(1_000_000)
    (place / "new").write_bytes(noise)
    (place / "etc/file0.conf").unlink()
    (device,) = listed()
    assert (device["mount"], device["via"], device["read_only"]) == (str(place), via, False)
    assert str(place) in cowcloop("list").stdout.decode()
    assert one_line(cowcloop("umount", place).stderr.decode()).endswith(DONE)
    assert left() == []
    assert list(place.iterdir()) == []
    assert cowfile.original_refuses(cow, ext2.read_bytes()) is None

    cowcloop("mount", "--via", via, chicken, cow, place)
    assert (place / "new").read_bytes() == noise
    assert not (place / "etc/file0.conf").exists()
    assert cowcloop("umount", "-q", place).stderr == b""
    assert left() == []
    assert sha(chicken) == before
    cowcloop("extract", chicken, cow, tmp_path / "whole")
    run(program("e2fsck", "e2fsprogs"), "-fn", tmp_path / "whole")


@pytest.mark.parametrize("via", WAYS)
@pytest.mark.parametrize("how", ["no cowfile", "--read-only"])
def test_read_only(
    via: str, how: str, chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    cow = tmp_path / "c"
    if how == "--read-only":
        cowcloop("detach", attach(chicken, cow))
        before = sha(cow)
        cowcloop("mount", "--via", via, chicken, cow, place, "--read-only")
    else:
        cowcloop("mount", "--via", via, chicken, place)
    assert (place / "usr/zeros.bin").stat().st_size == 500_003
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").write_text("x")
    assert listed()[0]["read_only"] is True
    assert one_line(cowcloop("umount", place).stderr.decode()).endswith("it was read-only")
    assert left() == []
    if how == "--read-only":
        assert sha(cow) == before


def test_memory_and_stacked_cowfiles(chicken: Path, place: Path, tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    cowcloop("mount", chicken, lower, place)
    (place / "course").write_text("notes")
    cowcloop("umount", place)
    before = sha(lower)
    cowcloop("mount", chicken, lower, ":memory:", place)
    assert (place / "course").read_text() == "notes"
    (place / "course").write_text("scribbles")
    cowcloop("umount", place)
    assert sha(lower) == before


def test_a_journal_is_warned_of(place: Path, tmp_path: Path) -> None:
    plain = mkfs(tmp_path / "plain", "ext4", "-O", "^has_journal")
    journal = mkfs(tmp_path / "journal", "ext4")
    ext3 = mkfs(tmp_path / "ext3", "ext3")

    def said(*arguments: str | Path) -> str:
        done = cowcloop("mount", *arguments, ":memory:", place)
        cowcloop("umount", place)
        return done.stderr.decode()

    assert said(plain) == ""
    line = one_line(said(journal), ("warning", "journal", "ext4"))
    assert "tune2fs -O ^has_journal" in line
    one_line(said(ext3), ("warning", "journal", "ext3"))
    assert said(journal, "-q") == ""
    assert cowcloop("mount", journal, place).stderr == b""  # nothing is written
    cowcloop("umount", place)
    # What the warning tells takes the journal away.
    cow, disk = tmp_path / "cow", tmp_path / "disk"
    uri = attach(journal, cow)
    disk.touch()
    bridge = subprocess.Popen([program("nbdfuse", "libnbd-bin"), disk, uri])
    wait_until(lambda: disk.stat().st_size > 0, "nbdfuse")
    run(program("tune2fs", "e2fsprogs"), "-O", "^has_journal", disk)
    run("fusermount3", "-u", disk)
    bridge.wait(60)
    cowcloop("detach", uri)
    assert cowcloop("mount", journal, cow, place).stderr == b""
    cowcloop("umount", place)


def test_xfs(place: Path, tmp_path: Path) -> None:
    mkfs_xfs = program("mkfs.xfs", "xfsprogs")
    disk, cow = tmp_path / "x", tmp_path / "c"
    disk.touch()
    os.truncate(disk, 320 << 20)
    run(mkfs_xfs, "-q", disk)
    if "xfs" not in Path("/proc/filesystems").read_text():
        pytest.skip("the kernel has no xfs")
    one_line(cowcloop("mount", disk, cow, place).stderr.decode(), ("warning", "xfs", "journal"))
    (place / "new").write_text("x")
    cowcloop("umount", place)
    cowcloop("mount", disk, cow, place, "--read-only")
    assert (place / "new").read_text() == "x"
    cowcloop("umount", place)
    program("fuse2fs", "fuse2fs")
    refused("mount", "--via", "fuse2fs", disk, cow, place, says=("xfs", "ext4", "root"))


PARTITIONS = {
    "dos": "label: dos\n1: size=9MiB\n2: size=20MiB, type=E\n5: size=9MiB\n",
    "gpt": "label: gpt\nsize=9MiB\nsize=1MiB\nsize=9MiB\n",
}


@pytest.mark.parametrize("table", PARTITIONS)
@pytest.mark.parametrize("via", WAYS)
def test_partitions(
    table: str, via: str, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """MBR with a logical partition, and GPT; each partition is mounted by its number."""
    sfdisk = program("sfdisk", "fdisk")
    program("fuse2fs", "fuse2fs")
    disk, cow = tmp_path / "disk", tmp_path / "cow"
    disk.touch()
    os.truncate(disk, 32 << 20)
    run(sfdisk, "-q", disk, stdin=PARTITIONS[table].encode())
    dump = run(sfdisk, "-d", disk).stdout.decode().splitlines()
    starts = [int(line.split("start=")[1].split(",")[0]) * 512 for line in dump if "start=" in line]
    last = 5 if table == "dos" else 3
    mkfs(disk, "ext2", "-L", "first", kib=8192, offset=starts[0])
    mkfs(disk, "ext2", "-L", "last", kib=8192, offset=starts[-1])

    line = refused("mount", disk, cow, place, says=("--partition", "1 (ext2, 9.0 MiB)"))
    assert f"{last} (ext2, 9.0 MiB)" in line
    refused("mount", disk, place, "--partition", "9", says=("partition 9", "1 (ext2", f"{last} ("))
    refused("mount", disk, place, "--partition", "2", says=("partition 2", "file system"))
    assert left() == []
    for number in (1, last):
        cowcloop("mount", "--via", via, disk, cow, place, "--partition", str(number))
        (place / "mine").write_text(f"of {number}")
        cowcloop("umount", place)
    for number in (1, last):
        cowcloop("mount", "--via", via, disk, cow, place, "--partition", str(number))
        assert (place / "mine").read_text() == f"of {number}"
        cowcloop("umount", place)
    assert left() == []
    cowcloop("extract", disk, cow, tmp_path / "whole")
    e2fsck = program("e2fsck", "e2fsprogs")
    run(e2fsck, "-fn", f"{tmp_path / 'whole'}?offset={starts[0]}")
    run(e2fsck, "-fn", f"{tmp_path / 'whole'}?offset={starts[-1]}")


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
        refused("mount", "--via", via, broken, tmp_path / "c", place, says="broken")
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


@pytest.mark.parametrize(
    "name",
    ["with blanks", "a,b=c,ro", "-o", "new\nline", "$(touch x) ; ' \" \\040 %s ü", b"caf\xe9"],
)
@pytest.mark.parametrize("via", WAYS)
def test_odd_names(
    name: str | bytes, via: str, chicken: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    image, cow, place = folder / "i,ro", folder / "-c", folder / folder.name
    shutil.copy(chicken, image)
    place.mkdir()
    # Relative, through a link, and as it is.
    link = tmp_path / "link"
    link.symlink_to(folder)
    cowcloop("mount", "--via", via, "--", "i,ro", "-c", place.name, cwd=folder)
    (place / "new").write_text("x")
    assert listed()[0]["mount"] == str(place)
    cowcloop("umount", "--", Path("link") / place.name, cwd=tmp_path)
    assert left() == []
    cowcloop("mount", "--via", via, image, cow, link / place.name)
    assert (place / "new").read_text() == "x"
    refused("mount", image, place, says="umount")
    cowcloop("umount", "--", place.name, cwd=folder)
    assert left() == []
    assert not (tmp_path / "x").exists()


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
    # Somebody unmounts it by hand: then it is as any other device.
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
        ("fuse", ["nbdkit"]),
        ("fuse", ["nbdfuse"]),
        ("fuse", ["nbdkit", "nbdfuse"]),
        ("fuse2fs", ["nbdkit"]),
        ("fuse2fs", ["fuse2fs"]),
        ("fuse2fs", ["fuse2fs", "nbdfuse", "nbdkit"]),
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


def test_a_busy_mount_after_a_crash(
    chicken: Path, place: Path, tmp_path: Path, runtime: Path, left: Callable[[], list[str]]
) -> None:
    cowcloop("mount", chicken, tmp_path / "c", place)
    handle = os.open(place, os.O_RDONLY)
    try:
        kill("nbdkit", runtime)
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
        said = umount.communicate(timeout=60)[1].decode().splitlines()
    assert f"its server (process {pid}) is stopped" in said[0]
    assert umount.returncode == 0
    assert left() == []


def test_a_journal_that_was_not_replayed(
    place: Path, tmp_path: Path, runtime: Path, left: Callable[[], list[str]]
) -> None:
    """A crash leaves a journal with changes: read-only without them, writable with."""
    disk, cow = mkfs(tmp_path / "disk", "ext4"), tmp_path / "c"
    cowcloop("mount", "-q", disk, cow, place)
    (place / "journaled").write_text("x")
    run("sync", "-f", place)
    for name in ("nbdkit", "nbdfuse"):
        kill(name, runtime)
    cowcloop("umount", place)
    assert left() == []
    done = cowcloop("mount", disk, cow, place, "--read-only")
    one_line(done.stderr.decode(), ("warning", "journal", "noload", "COW"))
    cowcloop("umount", place)
    cowcloop("mount", "-q", disk, cow, place)
    assert (place / "journaled").read_text() == "x"
    cowcloop("umount", place)
    assert cowcloop("mount", disk, cow, place, "--read-only").stderr == b""
    cowcloop("umount", place)
    assert left() == []


@pytest.mark.parametrize("command", ["mount", "attach"])
def test_ctrl_c_leaves_nothing(
    command: str,
    chicken: Path,
    place: Path,
    tmp_path: Path,
    runtime: Path,
    left: Callable[[], list[str]],
) -> None:
    """At any moment: all of it, or nothing at all."""
    arguments = [chicken, tmp_path / "c", *([place] if command == "mount" else [])]
    codes = []
    for step in range(24):
        process = subprocess.Popen(
            [cowcloop_path(), command, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        wait_until(lambda: any((runtime / "cowcloop").glob("*")), "the registry's entry", 30)
        time.sleep(step * 0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        error = process.communicate(timeout=60)[1].decode()
        codes.append(process.returncode)
        if process.returncode == 0:
            cowcloop("umount", place) if command == "mount" else cowcloop("detach", "--all")
        else:
            assert process.returncode == 130, error
            one_line(error, "interrupted")
        assert left() == [], f"step {step}, exit code {process.returncode}"
    # attach has done its work nearly at once.
    assert 130 in codes or command == "attach"


@pytest.mark.parametrize("how", ["INT", "TERM", "HUP", "QUIT"])
@pytest.mark.parametrize("command", ["mount", "attach"])
def test_a_signal_leaves_nothing(
    command: str,
    how: str,
    chicken: Path,
    place: Path,
    tmp_path: Path,
    left: Callable[[], list[str]],
) -> None:
    """It comes while a program that the command has started works for it."""
    name, package = ("blkid", "util-linux") if command == "mount" else ("nbdkit", "nbdkit")
    fake, real = tmp_path / name, program(name, package)
    fake.write_text(f'#!/bin/sh\nkill -{how} $PPID\nexec {real} "$@"\n')
    fake.chmod(0o755)
    arguments: list[Path] = [chicken, tmp_path / "c", *([place] if command == "mount" else [])]
    number = signal.Signals[f"SIG{how}"]
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = cowcloop(command, *arguments, env=env, expect=128 + number)
    one_line(done.stderr.decode(), "interrupted" if how == "INT" else f"interrupted by SIG{how}")
    assert left() == []
    # One that is ignored is none.
    script = f"trap '' {how}; \"$@\""
    run("bash", "-c", script, "bash", cowcloop_path(), command, *arguments, env=env)
    cowcloop("umount", place) if command == "mount" else cowcloop("detach", "--all")
    assert left() == []


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
    said = [process.communicate(timeout=60)[1].decode() for process in running]
    assert sorted(process.returncode for process in running) == [0, 1, 1], said
    assert len(listed()) == 1
    cowcloop("umount", place)
    assert left() == []


@pytest.mark.parametrize("via", WAYS)
def test_a_full_disk_is_told(
    via: str, place: Path, tmp_path: Path, tiny_tmpfs: Path, left: Callable[[], list[str]]
) -> None:
    """umount says that everything is on disk only when it is."""
    program("fuse2fs", "fuse2fs")
    disk = mkfs(tmp_path / "disk", "ext2", kib=32768)
    cowcloop("mount", "--via", via, disk, tiny_tmpfs / "c", place)
    try:
        (place / "big").write_bytes(random.Random(3).randbytes(16 << 20))
    except OSError:
        assert via == "fuse2fs"
    done = cowcloop("umount", place, expect=1)
    one_line(done.stderr.decode(), "not everything could be written")
    if left():
        cowcloop("umount", place, expect=None)
    assert left() == []


def test_output_where_every_file_has_a_name(chicken: Path, place: Path, tmp_path: Path) -> None:
    """fuse2fs has no files without names: there an output has a passing one until it is whole."""
    program("fuse2fs", "fuse2fs")
    disk = mkfs(tmp_path / "disk", "ext2", kib=98304)
    cowcloop("mount", "--via", "fuse2fs", disk, tmp_path / "c", place)
    try:
        with pytest.raises(OSError, match=r"not supported|Is a directory"):
            os.open(place, os.O_TMPFILE | os.O_RDWR)
        before = sorted(os.listdir(place))
        out = place / "out"
        cowcloop("extract", chicken, tmp_path / "out")
        whole = (tmp_path / "out").read_bytes()
        for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            code = stopped_half_way("extract", chicken, out, folder=place, how=how)
            assert code == 128 + how
            # The signal may have come when all was done but the command's own end.
            if out.exists():
                assert out.read_bytes() == whole
                out.unlink()
            # FUSE keeps a removed file, hidden, until its close has come through.
            wait_until(lambda: sorted(os.listdir(place)) == before, "nothing left")
        cowcloop("extract", chicken, out)
        assert out.read_bytes() == whole
        assert sorted(os.listdir(place)) == sorted([*before, "out"])
    finally:
        cowcloop("umount", place)


def test_as_another_user(tmp_path: Path, chicken: Path, runtime: Path) -> None:
    """Without root: nbdfuse and fuse2fs, all of it in the user's own name."""
    program("fuse2fs", "fuse2fs")
    setpriv, unshare = program("setpriv", "util-linux"), program("unshare", "util-linux")
    home = runtime / "home"
    (home / "d").mkdir(parents=True)
    shutil.copy(chicken, home / "i")
    (home / "zeros").write_bytes(bytes(1 << 20))
    for path in (runtime, home, *home.iterdir()):
        os.chown(path, 65534, 65534)
    reachable = run(
        setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", cowcloop_path(), "--version",
        expect=None,
    )  # fmt: skip
    if reachable.returncode:
        pytest.skip(f"another user cannot run {cowcloop_path()}")
    # Everybody's /dev/fuse, as on most machines, in a mount namespace of its own.
    as_root = (
        'mkdir "$1/dev" && mount -t tmpfs tmpfs "$1/dev" && mknod -m 666 "$1/dev/fuse" c 10 229 && '
        'mount --bind "$1/dev/fuse" /dev/fuse && cd "$1/home" && shift && '
        'exec setpriv --reuid=65534 --regid=65534 --clear-groups bash -euxc "$@"'
    )
    as_user = r"""
        test $(id -u) = 65534
        $1 mount i c d
        echo mine > d/new
        echo too >> d/etc/file0.conf
        $1 list --json
        ( cd d; ! $1 umount ../d )
        $1 umount d
        test -z "$(ls -A d)"
        test -z "$(ls -A "$XDG_RUNTIME_DIR/cowcloop")"
        $1 mount i c d
        cat d/new
        pid=$($1 list --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
        kill -KILL $pid
        while kill -0 $pid 2> /dev/null; do sleep 0.1; done
        $1 umount d
        test -z "$(ls -A d)"
        ! $1 mount --via fuse i d
        ! $1 mount zeros d
        test -z "$(ls -A "$XDG_RUNTIME_DIR/cowcloop")"
        $1 mount --via fuse2fs i d
        test -d d/etc
        $1 umount d
    """
    done = run(
        unshare, "--mount", "bash", "-euc", as_root, "bash", runtime, as_user, "bash",
        cowcloop_path(),
        env={"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)},
    )  # fmt: skip
    said = done.stderr.decode()
    assert '"via": "fuse2fs"' in done.stdout.decode()
    assert "mine" in done.stdout.decode()
    for words in (DONE, "is busy", "after a crash", "needs root", "no file system"):
        assert words in said, said


def test_in_another_namespace(
    chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """What is mounted where we do not see it is not taken away from there."""
    unshare = program("unshare", "util-linux")
    script = '"$1" mount "$2" "$3" "$4" && echo && read line && "$1" umount -q "$4"'
    words = [cowcloop_path(), str(chicken), str(tmp_path / "c"), str(place)]
    process = subprocess.Popen(
        [unshare, "--mount", "bash", "-c", script, "bash", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    refused("umount", place, says="another mount namespace")
    process.communicate(b"go on\n", timeout=60)
    assert process.returncode == 0
    assert left() == []


@pytest.mark.parametrize("via", WAYS)
def test_a_missing_program(
    via: str, chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """Each program that is missing is named with its package, before anything is started."""
    missing = {"fuse": "nbdfuse", "fuse2fs": "fuse2fs"}[via]
    script = (
        "import sys, shutil\n"
        "real = shutil.which\n"
        f"shutil.which = lambda name, **more: None if name == {missing!r} else real(name, **more)\n"
        "from cowcloop.cli import main\n"
        "sys.exit(main())\n"
    )
    python = ROOT / ".venv/bin/python"
    done = run(python, "-c", script, "mount", "--via", via, chicken, place, expect=1)
    package = {"nbdfuse": "libnbd-bin", "fuse2fs": "fuse2fs"}[missing]
    one_line(done.stderr.decode(), (f"{missing} is not installed", package))
    assert left() == []
