"""The three examples of the cowloop documentation, as people do them today."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cowfile, images, nbdclient
from support.programs import cowcloop, program, run
from support.server import attach, serving, wait_until


@contextlib.contextmanager
def mounted(uri: str, folder: Path) -> Iterator[Path]:
    """The device mounted by hand, through FUSE and a loop device."""
    raw, place = folder / "bridge", folder / "mnt"
    raw.touch()
    place.mkdir(exist_ok=True)
    bridge = subprocess.Popen([program("nbdfuse", "libnbd-bin"), raw, uri])
    try:
        wait_until(lambda: raw.stat().st_size > 0, "nbdfuse")
        run(program("mount", "mount"), "-o", "loop,noatime", "-t", "ext2", raw, place)
        try:
            yield place
        finally:
            run("umount", place)
    finally:
        run("fusermount3", "-u", raw, expect=None)
        bridge.wait(60)


@pytest.fixture
def floppy(tmp_path: Path) -> Path:
    """A write-protected floppy of 1440 KiB with a filesystem."""
    path = tmp_path / "floppy"
    run(program("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext2", path, "1440")
    path.chmod(0o444)
    return path


@pytest.mark.usefixtures("fuse", "loop")
def test_a_session_on_a_write_protected_floppy(floppy: Path, tmp_path: Path) -> None:
    """Written today on one device, gone on tomorrow on another one."""
    cow = tmp_path / "floppy.cow"
    before = hashlib.sha256(floppy.read_bytes()).digest()
    uri = attach(floppy, cow)
    with mounted(uri, tmp_path) as place:
        (place / "letter").write_text("dear floppy")
    cowcloop("detach", uri)
    first = uri

    other = attach(floppy, ":memory:")  # takes the first one's place
    uri = attach(floppy, cow)
    assert uri != first
    with mounted(uri, tmp_path) as place:
        assert (place / "letter").read_text() == "dear floppy"
        (place / "letter").write_text("dear floppy, it is me again")
    cowcloop("detach", uri)
    cowcloop("detach", other)
    assert hashlib.sha256(floppy.read_bytes()).digest() == before
    assert cowfile.original_refuses(cow, floppy.read_bytes()) is None
    run(program("e2fsck", "e2fsprogs"), "-fn", _extracted(floppy, cow, tmp_path))


@pytest.mark.usefixtures("fuse", "loop")
def test_a_compressed_cd_becomes_writable(chicken: Path, ext2: Path, tmp_path: Path) -> None:
    """The CD's image is mounted writable in one command, and again the next day."""
    cd, cow, place = tmp_path / "cd", tmp_path / "chicken.cow", tmp_path / "mnt"
    cd.mkdir()
    place.mkdir()
    shutil.copy(chicken, cd / "chicken")
    run(program("mount", "mount"), "--bind", "-o", "ro", cd, cd)
    try:
        cowcloop("mount", cd / "chicken", cow, place)
        shutil.copy("/etc/passwd", place)
        (place / "etc/file1.conf").unlink()
        cowcloop("umount", place)
        cowcloop("mount", cd / "chicken", cow, place)
        assert (place / "passwd").read_bytes() == Path("/etc/passwd").read_bytes()
        assert not (place / "etc/file1.conf").exists()
        cowcloop("umount", place)
        assert (cd / "chicken").read_bytes() == chicken.read_bytes()
    finally:
        run("umount", cd)
    assert cowfile.original_refuses(cow, ext2.read_bytes()) is None
    run(program("e2fsck", "e2fsprogs"), "-fn", _extracted(chicken, cow, tmp_path))


@pytest.mark.usefixtures("fuse", "loop")
def test_a_mounted_classroom(chicken: Path, tmp_path: Path) -> None:
    """Each user has the same base mounted, at the same time, and sees only their own changes."""
    pupils = ["anna", "bob", "carl"]
    for day in range(2):
        for name in pupils:
            (tmp_path / name).mkdir(exist_ok=True)
            cowcloop("mount", chicken, tmp_path / f"{name}.cow", tmp_path / name)
        for name in pupils:
            diary = tmp_path / name / "diary"
            assert diary.exists() == (day > 0)
            with diary.open("a") as file:
                file.write(f"{name}, day {day}\n")
        for name in pupils:
            text = (tmp_path / name / "diary").read_text()
            assert text == "".join(f"{name}, day {past}\n" for past in range(day + 1))
            cowcloop("umount", tmp_path / name)


def test_several_sessions_over_one_base(chicken: Path, ext2: Path, tmp_path: Path) -> None:
    """A classroom: each pupil has the same base, and changes of their own."""
    plain = ext2.read_bytes()
    pupils = ["anna", "bob", "carl"]
    uris = {name: attach(chicken, tmp_path / f"{name}.cow") for name in pupils}
    handles = {name: nbdclient.connect(uri) for name, uri in uris.items()}
    for name, handle in handles.items():
        handle.pwrite(name.encode() * 100, 5000)
    for name, handle in handles.items():
        assert handle.pread(len(name) * 100, 5000) == name.encode() * 100
        handle.shutdown()
        cowcloop("detach", uris[name])
    for name in pupils:
        blocks = cowfile.parse(tmp_path / f"{name}.cow").blocks
        want = plain[:5000] + name.encode() * 100 + plain[5000 + len(name) * 100 :]
        assert cowfile.merged(plain, blocks) == want


def _extracted(image: Path, cow: Path, folder: Path) -> Path:
    out = folder / "extracted"
    cowcloop("extract", image, cow, out)
    return out


def test_the_session_can_be_made_into_a_new_cd(chicken: Path, tmp_path: Path) -> None:
    """What remastering is: extract with the changes, compress again, and Debian reads it."""
    cow, merged, again = tmp_path / "c", tmp_path / "merged", tmp_path / "again"
    with serving(chicken, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"remastered", 1 << 20)
        handle.shutdown()
    cowcloop("extract", chicken, cow, merged)
    new = tmp_path / "new.img"
    cowcloop("commit", chicken, cow, new)
    images.decompress(new, again)
    assert again.read_bytes() == merged.read_bytes()
    assert again.read_bytes()[1 << 20 :].startswith(b"remastered")
