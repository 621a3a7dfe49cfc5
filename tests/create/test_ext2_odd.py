"""Directories with what ext2 or mke2fs find difficult; e2fsck is asked about each filesystem."""

from __future__ import annotations

import calendar
import errno
import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest
from cowcloop.ext2 import filesystem_of
from cowcloop.ext2.measure import Needs
from cowcloop.ext2.programs import Programs
from support import users
from support.programs import cowcloop, cowcloop_path, one_line, program, refused, run


def made(tree: Path, tmp_path: Path) -> Path:
    """The filesystem of a directory, which is sound."""
    image = tmp_path / "image"
    with filesystem_of(tree) as path:
        shutil.copyfile(path, image)
    run(program("e2fsck", "e2fsprogs"), "-fn", image)
    return image


def debugfs(image: Path, request: str) -> str:
    return run(program("debugfs", "e2fsprogs"), "-R", request, image).stdout.decode()


def set_attributes(path: Path, attributes: dict[str, bytes]) -> None:
    for name, value in attributes.items():
        try:
            os.setxattr(path, name, value)
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.EPERM):
                pytest.skip(f"this file system takes no attribute {name}")
            raise


# A POSIX ACL: owner, one named user, group, mask, others.
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 4, who)
    for tag, who in (
        (1, 0xFFFFFFFF),
        (2, 1000),
        (4, 0xFFFFFFFF),
        (16, 0xFFFFFFFF),
        (32, 0xFFFFFFFF),
    )
)


@pytest.mark.parametrize(
    ("files", "attributes"),
    [
        (600, {"user.a": b"x" * 206}),
        (3000, {"user.a": b"x" * 206}),
        (600, {"security.selinux": b"u:object_r:t:s0\0" * 2, "system.posix_acl_access": _ACL}),
        (600, {"security.ima": bytes(range(256)) + b"signature"}),
        (40, {"user.large": b"x" * 3500}),
    ],
)
def test_attributes_that_an_inode_has_no_room_for(
    tmp_path: Path, files: int, attributes: dict[str, bytes]
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(files):
        (tree / str(number)).touch()
        set_attributes(tree / str(number), attributes)
    image = made(tree, tmp_path)
    told = debugfs(image, f"ea_list /{files - 1}")
    assert all(name in told for name in attributes)


def in_memory() -> Path:
    """A directory on a tmpfs, which holds more than ext2 and ext4 do."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no directory on a tmpfs: /dev/shm cannot be written")
    return Path(tempfile.mkdtemp(dir="/dev/shm"))


def test_more_attributes_than_ext2_takes(tmp_path: Path) -> None:
    tree = in_memory()
    try:
        (tree / "small").touch()
        (tree / "large").touch()
        set_attributes(tree / "large", {"user.a": b"x" * 6000})
        line = refused("create", tree, tmp_path / "out", says=("large", "4096", "attribute"))
        assert f"{tree}/large" in line
    finally:
        shutil.rmtree(tree)


#: As seconds: what 32 bits with a sign do not hold, and what lies just within.
TIMES = {
    "long ago": calendar.timegm((1902, 1, 1, 0, 0, 0)),
    "before": -1,
    "last": (1 << 31) - 1,
    "first": 1 << 31,
    "2050": calendar.timegm((2050, 1, 1, 0, 0, 0)),
    "2107": (1 << 32) + 5,
    "same bits as 2050": calendar.timegm((2050, 1, 1, 0, 0, 0)) - (1 << 32),
    "2440": calendar.timegm((2440, 1, 1, 0, 0, 0)),
    "now": 1_700_000_000,
}


def time_in(image: Path, path: str) -> int:
    """The time of modification, of which debugfs shows the upper bits apart."""
    told = re.search(r"mtime: 0x(\w+):(\w+)", debugfs(image, f'stat "{path}"'))
    assert told is not None
    low, extra = (int(each, 16) for each in told.groups())
    return low - (low >> 31 << 32) + ((extra & 3) << 32)


def test_times_beyond_2038(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    # More names than the first blocks of a directory hold, so that all kinds of blocks are met.
    (tree / "many").mkdir(parents=True)
    for number in range(4000):
        (tree / "many" / f"{number:0200}").touch()
    os.utime(tree / "many" / f"{3999:0200}", (0, TIMES["2107"]))
    for name, seconds in TIMES.items():
        (tree / name).mkdir()
        (tree / name / "file").touch()
        (tree / name / "link").symlink_to("x" * 80)
        for path in (tree / name / "file", tree / name / "link", tree / name):
            os.utime(path, (0, seconds), follow_symlinks=False)
            if path.lstat().st_mtime != seconds:
                pytest.skip("this file system does not hold such times")
    image = made(tree, tmp_path)
    for name, seconds in TIMES.items():
        for inside in (name, f"{name}/file", f"{name}/link"):
            assert time_in(image, f"/{inside}") == seconds, inside
    assert time_in(image, f"/many/{3999:0200}") == TIMES["2107"]
    again = tmp_path / "again"
    again.mkdir()
    assert made(tree, again).read_bytes() == image.read_bytes()


def test_times_that_ext2_does_not_hold(tmp_path: Path) -> None:
    tree = in_memory()
    try:
        for name, year in (("early", 1800), ("late", 2500)):
            (tree / name).touch()
            os.utime(tree / name, (0, calendar.timegm((year, 1, 1, 0, 0, 0))))
        if (tree / "late").stat().st_mtime <= (1 << 34) - (1 << 31):
            pytest.skip("this tmpfs does not hold such times")
        done = cowcloop("create", tree, tmp_path / "out")
        one_line(done.stderr.decode().splitlines()[0], ("warning", "2446", "nearest"))
        image = made(tree, tmp_path)
        assert time_in(image, "/early") == -(1 << 31)
        assert time_in(image, "/late") == (1 << 34) - (1 << 31) - 1
    finally:
        shutil.rmtree(tree)


@pytest.mark.parametrize("seconds", [1_600_000_000, TIMES["2050"], TIMES["long ago"]])
def test_the_root_directory(tmp_path: Path, root: None, seconds: int) -> None:
    """Owner, mode, attributes and time are those of the directory."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").touch()
    os.chown(tree, 70_000, 44)
    tree.chmod(0o1751)
    set_attributes(tree, {"user.root": b"value"})
    os.utime(tree, (0, seconds))
    image = made(tree, tmp_path)
    told = debugfs(image, "stat /")
    assert re.search(r"Mode:\s+01751\b", told)
    assert re.search(r"User:\s+70000\s+Group:\s+44\b", told)
    assert time_in(image, "/") == seconds
    assert "user.root" in debugfs(image, "ea_list /")


def test_more_directories_than_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of links has 16 bits; mke2fs lets it overflow, which is shown here with fewer."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for number in range(20):
        (tree / "sub" / str(number)).mkdir()
    monkeypatch.setattr("cowcloop.ext2.measure.MOST_LINKS", 20)
    mended = []
    real = Programs.mend

    def overflow_and_mend(self: Programs, file: BinaryIO, needs: Needs) -> None:
        handle = file.fileno()
        command = [
            program("debugfs", "e2fsprogs"),
            "-w",
            "-R",
            "set_inode_field /sub links_count 66",
        ]
        name = f"/proc/self/fd/{handle}"
        subprocess.run([*command, name], pass_fds=[handle], check=True, capture_output=True)
        mended.append(name)
        real(self, file, needs)

    monkeypatch.setattr(Programs, "mend", overflow_and_mend)
    image = made(tree, tmp_path)
    assert len(mended) == 1
    assert "dir_nlink" in run(program("dumpe2fs", "e2fsprogs"), "-h", image).stdout.decode()
    assert re.search(r"Links: 22\b", debugfs(image, "stat /sub"))


def test_a_file_that_may_not_be_read(tmp_path: Path, root: None) -> None:
    """It is named, with its path; so is a directory."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "secret").write_text("x")
    (tree / "sub" / "secret").chmod(0)
    for path in (tmp_path, tree, tree / "sub"):
        path.chmod(0o755)
    for path in tmp_path.parents:
        if path.stat().st_mode & 0o5 != 0o5 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o5)
    users.require()
    words = users.as_nobody(cowcloop_path(), "create", tree, "-")
    for name, told in (("secret", "sub/secret"), ("sub", "sub")):
        done = run("/bin/sh", "-c", '"$@" | cat >/dev/null', "sh", *words)
        line = one_line(done.stderr.decode(), ("may not be read", "root"))
        assert line.startswith(f"cowcloop: {tree}/{told}: "), name
        (tree / "sub").chmod(0)


def test_of_what_mke2fs_says_the_line_with_the_file_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last line says only that it was filling the filesystem."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    fake = tmp_path / "mke2fs"
    fake.write_text(
        "#!/bin/sh\n"
        "echo 'do_write_internal: Permission denied while opening \"secret\" to copy' >&2\n"
        "echo '__populate_fs: Permission denied while writing file \"secret\"' >&2\n"
        "echo 'mke2fs: Permission denied while populating file system' >&2\n"
        "exit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    line = refused("create", tree, tmp_path / "out")
    assert line.endswith('tree: mke2fs: Permission denied while opening "secret" to copy')
