"""mount: from an image and its cowfiles to a directory."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cowcloop.server.daemon import daemon_path
from support import cowfile, users
from support.mounts import (
    DONE,
    WAYS,
    kill,
    mkfs,
    mounted_options,
    require_fuse2fs_that_writes,
    sha,
)
from support.programs import (
    cowcloop,
    cowcloop_path,
    find,
    missing,
    one_line,
    program,
    refused,
    run,
)
from support.server import attach, listed, wait_until

pytestmark = pytest.mark.usefixtures("fuse", "loop")


@pytest.mark.parametrize("via", WAYS)
def test_the_next_day(
    via: str, chicken: Path, ext2: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """Written today, there tomorrow; the image as it was, and nothing left over."""
    cow, before = tmp_path / "c.cow", sha(chicken)
    done = cowcloop("mount", "--via", via, chicken, cow, place)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert cow.stat().st_mode & 0o777 == 0o600
    assert "noatime" in mounted_options(place)
    noise = random.Random(1).randbytes(1_000_000)
    (place / "new").write_bytes(noise)
    (place / "etc/file0.conf").unlink()
    # Opened with O_TRUNC: nothing of what was in it stays.
    (place / "etc/file1.conf").write_bytes(b"short\n")
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
    assert (place / "etc/file1.conf").read_bytes() == b"short\n"
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
    disk.mkdir()
    server = subprocess.Popen([daemon_path(), "fuse", disk, f"image={journal}", f"cow={cow}"])
    wait_until((disk / "disk").exists, "the file")
    run(program("tune2fs", "e2fsprogs"), "-O", "^has_journal", disk / "disk")
    run("umount", disk)
    assert server.wait(60) == 0
    assert cowcloop("mount", journal, cow, place).stderr == b""
    cowcloop("umount", place)


def test_a_journal_that_was_not_replayed(
    place: Path, tmp_path: Path, runtime: Path, left: Callable[[], list[str]]
) -> None:
    """A crash leaves a journal with changes: read-only without them, writable with."""
    disk, cow = mkfs(tmp_path / "disk", "ext4"), tmp_path / "c"
    cowcloop("mount", "-q", disk, cow, place)
    (place / "journaled").write_text("x")
    run("sync", "-f", place)
    kill("cowcloopd", runtime)
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


def test_xfs(place: Path, tmp_path: Path) -> None:
    mkfs_xfs = program("mkfs.xfs", "xfsprogs")
    disk, cow = tmp_path / "x", tmp_path / "c"
    disk.touch()
    os.truncate(disk, 320 << 20)
    run(mkfs_xfs, "-q", disk)
    modprobe = find("modprobe")
    if modprobe:
        run(modprobe, "xfs", expect=None)
    if "xfs" not in Path("/proc/filesystems").read_text():
        missing("the kernel has no xfs")
    one_line(cowcloop("mount", disk, cow, place).stderr.decode(), ("warning", "xfs", "journal"))
    (place / "new").write_text("x")
    cowcloop("umount", place)
    cowcloop("mount", disk, cow, place, "--read-only")
    assert (place / "new").read_text() == "x"
    cowcloop("umount", place)
    program("fuse2fs", "fuse2fs")
    refused("mount", "--via", "fuse2fs", disk, place, says=("xfs", "ext4", "root"))


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


def test_as_another_user(tmp_path: Path, chicken: Path, runtime: Path) -> None:
    """Without root: FUSE and fuse2fs, all of it in the user's own name."""
    require_fuse2fs_that_writes()
    users.require()
    home = runtime / "home"
    (home / "d").mkdir(parents=True)
    shutil.copy(chicken, home / "i")
    (home / "zeros").write_bytes(bytes(1 << 20))
    for path in (runtime, home, *home.iterdir()):
        os.chown(path, users.NOBODY, users.NOBODY)
    # A /dev/fuse for every user, as on most machines, in a mount namespace of its own.
    as_root = (
        'mkdir "$1/dev" && mount -t tmpfs tmpfs "$1/dev" && mknod -m 666 "$1/dev/fuse" c 10 229 && '
        'mount --bind "$1/dev/fuse" /dev/fuse && cd "$1/home" && shift && '
        f'exec setpriv {users.BECOME} bash -euxc "$@"'
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
        pids=$($1 list --json | sed -n 's/.*"\(pid\|supervisor\)": \([0-9]*\).*/\2/p' | sort -n)
        kill -KILL $pids
        for pid in $pids; do while kill -0 $pid 2> /dev/null; do sleep 0.1; done; done
        $1 umount d
        test -z "$(ls -A d)"
        ! $1 mount --via fuse i d
        ! $1 mount zeros d
        test -z "$(ls -A "$XDG_RUNTIME_DIR/cowcloop")"
        $1 mount --via fuse2fs i d
        test -d d/etc
        $1 umount d
    """
    command = ("bash", "-euc", as_root, "bash", runtime, as_user, "bash", cowcloop_path())
    done = run(
        *users.reachable(*command),
        env={"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)},
    )
    said = done.stderr.decode()
    assert '"via": "fuse2fs"' in done.stdout.decode()
    assert "mine" in done.stdout.decode()
    for words in (DONE, "is busy", "after a crash", "needs root", "no file system"):
        assert words in said, said
