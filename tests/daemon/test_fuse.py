"""The file that cowcloopd shows by FUSE, used as any file is."""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cowcloop.server.daemon import daemon_path
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import cloop
from support.daemon import (
    KEEP_SIZE,
    PUNCH_HOLE,
    ZERO_RANGE,
    Daemon,
    daemon,
    fallocate,
    on_loop,
)
from support.programs import PATIENCE, cowcloop, one_line, program, run
from support.server import wait_until

pytestmark = pytest.mark.usefixtures("fuse")

SIZE = len(cloop.PLAIN) // 1024 * 1024


def errno_of(action: object, *arguments: object) -> int | None:
    """The number of the error that a call raises."""
    assert callable(action)
    try:
        action(*arguments)
    except OSError as error:
        return error.errno
    return None


@pytest.fixture
def disk(image: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A device with a cowfile."""
    with daemon(tmp_path / "f", f"image={image}", f"cow={tmp_path}/c") as running:
        yield running


OFFSETS = st.integers(0, SIZE - 1)
LENGTHS = st.one_of(st.integers(1, 5000), st.integers(1, SIZE))
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "punch", "zero", "sync", "direct", "holes"]),
        OFFSETS,
        LENGTHS,
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=25,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(operations=OPERATIONS)
def test_it_is_the_file_that_plain_operations_make(
    operations: list[tuple[str, int, int, int]], image: Path, tmp_path: Path
) -> None:
    cow = tmp_path / "c"
    cow.unlink(missing_ok=True)
    plain = bytearray(cloop.PLAIN[:SIZE])
    with daemon(tmp_path / "f", f"image={image}", f"cow={cow}") as running:
        handle = os.open(running.disk, os.O_RDWR)
        try:
            for operation in operations:
                _do(operation, handle, running.disk, plain)
            assert os.pread(handle, SIZE + 1, 0) == plain
        finally:
            os.close(handle)
    # Another door shows the same.
    cowcloop("extract", image, cow, tmp_path / "out", "--force")
    assert (tmp_path / "out").read_bytes() == plain


def _do(operation: tuple[str, int, int, int], handle: int, disk: Path, plain: bytearray) -> None:
    name, offset, length, seed = operation
    end = min(offset + length, SIZE)
    if name == "read":
        assert os.pread(handle, length, offset) == plain[offset:end]
    elif name == "write":
        data = random.Random(seed).randbytes(end - offset)
        assert os.pwrite(handle, data, offset) == len(data)
        plain[offset:end] = data
    elif name in ("punch", "zero"):
        mode = PUNCH_HOLE | KEEP_SIZE if name == "punch" else ZERO_RANGE
        fallocate(handle, mode, offset, end - offset)
        plain[offset:end] = bytes(end - offset)
    elif name == "sync":
        os.fsync(handle)
    elif name == "direct":
        direct = os.open(disk, os.O_RDONLY | os.O_DIRECT)
        at = offset // 4096 * 4096
        # A mapping lies as the kernel wants it.
        with mmap.mmap(-1, 8192) as buffer:
            count = os.preadv(direct, [buffer], at)
            assert buffer[:count] == plain[at : at + 8192]
        os.close(direct)
    else:
        _check_holes(handle, offset, plain)


def _check_holes(handle: int, offset: int, plain: bytearray) -> None:
    """What is no data reads as zeros; a hole follows, at the end of the file at the latest."""
    data = SIZE
    number = errno_of(lambda: os.lseek(handle, offset, os.SEEK_DATA))
    if number is None:
        data = os.lseek(handle, offset, os.SEEK_DATA)
    assert number in (None, errno.ENXIO)
    assert offset <= data <= SIZE
    assert not any(plain[offset:data])
    hole = os.lseek(handle, offset, os.SEEK_HOLE)
    assert offset <= hole <= SIZE
    assert hole == offset or data == offset


def test_what_it_looks_like(disk: Daemon) -> None:
    status = disk.disk.stat()
    assert (status.st_size, status.st_nlink, status.st_uid) == (SIZE, 1, os.geteuid())
    assert stat.filemode(status.st_mode) == "-rw-------"
    assert os.listdir(disk.folder) == ["disk"]
    (ready,) = (event for event in disk.told if event["event"] == "ready")
    assert (ready["pid"], ready["device"]) == (disk.process.pid, str(disk.disk))


def test_what_a_device_does_not_do(disk: Daemon, tmp_path: Path) -> None:
    file = disk.disk
    assert errno_of((disk.folder / "other").touch) in (errno.ENOSYS, errno.EACCES)
    assert errno_of(file.unlink) in (errno.ENOSYS, errno.EACCES)
    assert errno_of(file.chmod, 0o644) == errno.EPERM
    assert errno_of(os.truncate, file, 1) == errno.EINVAL
    assert errno_of(os.truncate, file, SIZE + 1) == errno.EINVAL
    # As with a block device, to empty it at the start changes nothing.
    before = file.read_bytes()
    with file.open("r+b") as opened:
        opened.truncate(0)
    assert file.read_bytes() == before
    handle = os.open(file, os.O_RDWR)
    try:
        assert os.pwrite(handle, b"12", SIZE - 1) == 1
        assert errno_of(os.pwrite, handle, b"1", SIZE) == errno.ENOSPC
        assert errno_of(fallocate, handle, 0, 0, 1024) == errno.EOPNOTSUPP
        assert errno_of(os.lseek, handle, SIZE, os.SEEK_DATA) == errno.ENXIO
        assert os.pread(handle, 10, SIZE) == b""
    finally:
        os.close(handle)


@pytest.mark.parametrize("how", ["no cowfile", "read-only", "-o ro"])
def test_a_device_that_is_read_only(how: str, image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    words = [f"image={image}"]
    if how != "no cowfile":
        with daemon(tmp_path / "f", *words, f"cow={cow}"):
            pass
        words += [f"cow={cow}", *(["read-only=true"] if how == "read-only" else [])]
    options = ("-o", "ro") if how == "-o ro" else ()
    with daemon(tmp_path / "f", *words, options=options) as running:
        assert running.disk.read_bytes() == cloop.PLAIN[: running.disk.stat().st_size]
        for flags in (os.O_WRONLY, os.O_RDWR):
            assert errno_of(os.open, running.disk, flags) == errno.EROFS


def test_fsync_is_a_flush(disk: Daemon, image: Path, tmp_path: Path) -> None:
    """What was synced is there after a crash; the flush went through to the cowfile."""

    def flushes() -> int:
        count: int = disk.ask("status")["cowfiles"][0]["flushes"]
        return count

    data = random.Random(1).randbytes(5000)
    handle = os.open(disk.disk, os.O_RDWR)
    os.pwrite(handle, data, 3000)
    before = flushes()
    os.fsync(handle)
    assert flushes() == before + 1
    os.pwrite(handle, data, 20_000)
    os.fdatasync(handle)
    assert flushes() == before + 2
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / "c").read_bytes())
    os.close(handle)
    with daemon(tmp_path / "g", f"image={image}", f"cow={copy}") as other:
        content = other.disk.read_bytes()
        assert content[3000:8000] == content[20_000:25_000] == data


def test_a_flush_that_fails_is_told(image: Path, tmp_path: Path, tiny_tmpfs: Path) -> None:
    big = tmp_path / "big"
    big.touch()
    os.truncate(big, 16 << 20)
    with daemon(tmp_path / "f", f"image={big}", f"cow={tiny_tmpfs}/c") as running:
        handle = os.open(running.disk, os.O_RDWR)
        try:
            data = random.Random(2).randbytes(1 << 20)
            numbers = [errno_of(os.pwrite, handle, data, at << 20) for at in range(8)]
            assert numbers[0] is None
            assert numbers[-1] == errno.ENOSPC
        finally:
            os.close(handle)
        assert running.ask("status")["cowfiles"][0]["failures"] > 0
        fallocated = os.open(running.disk, os.O_RDWR)
        fallocate(fallocated, PUNCH_HOLE | KEEP_SIZE, 0, 16 << 20)
        os.close(fallocated)


def test_reads_that_wait_hold_up_nothing_else(disk: Daemon) -> None:
    """More of them than there are threads that read requests."""
    here = bytes(range(256)) * 16
    handle = os.open(disk.disk, os.O_RDWR | os.O_DIRECT)
    plain = os.open(disk.disk, os.O_RDWR)
    os.pwrite(plain, here, 0)
    disk.ask("suspend")
    found: dict[int, bytes] = {}

    def read(at: int) -> None:
        found[at] = os.pread(plain, 1024, at)

    waiting = [threading.Thread(target=read, args=(at,)) for at in range(8192, SIZE - 4096, 4096)]
    try:
        for thread in waiting:
            thread.start()
        os.pwrite(plain, here, 4096)
        os.fsync(plain)
        fallocate(plain, PUNCH_HOLE | KEEP_SIZE, 2048, 1024)
        assert os.pread(plain, 2048, 4096) == here[:2048]
        assert disk.disk.stat().st_size == SIZE
    finally:
        disk.ask("resume")
        for thread in waiting:
            thread.join(PATIENCE)
    assert found == {at: cloop.PLAIN[at : at + 1024] for at in range(8192, SIZE - 4096, 4096)}
    os.close(plain)
    os.close(handle)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, "cut", "unmount"])
def test_its_end(how: signal.Signals | str, image: Path, tmp_path: Path) -> None:
    """Either ends the other: the process its mount, an unmount the process."""
    cow = tmp_path / "c"
    running = Daemon(tmp_path / "f", f"image={image}", f"cow={cow}")
    with running.disk.open("r+b") as file:
        file.write(b"hello")
    if how == "unmount":
        run("fusermount3", "-u", running.folder)
    elif how == "cut":
        running.cut()
    assert running.end(how if isinstance(how, signal.Signals) else None) == 0
    assert running.told[-1]["event"] == "ended"
    assert os.listdir(running.folder) == []
    assert b"clean" in cowcloop("info", cow).stdout
    assert not running.socket.exists()


def test_an_end_while_it_is_used(image: Path, tmp_path: Path) -> None:
    """What was written stays, and the user of the file is told that it has gone."""
    cow = tmp_path / "c"
    running = Daemon(tmp_path / "f", f"image={image}", f"cow={cow}")
    handle = os.open(running.disk, os.O_RDWR)
    try:
        os.pwrite(handle, b"hello", 0)
        assert running.end() == 0
        assert errno_of(os.pread, handle, 10, 100_000) in (errno.ENOTCONN, errno.ECONNABORTED)
    finally:
        assert errno_of(os.close, handle) in (None, errno.ENOTCONN, errno.ECONNABORTED)
    assert b"clean" in cowcloop("info", cow).stdout
    cowcloop("extract", image, cow, tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[:5] == b"hello"


def test_an_end_while_reads_wait(image: Path, tmp_path: Path) -> None:
    running = Daemon(tmp_path / "f", f"image={image}", f"cow={tmp_path}/c")
    running.ask("suspend")
    numbers: list[int | None] = []
    handle = os.open(running.disk, os.O_RDONLY)

    def read() -> None:
        numbers.append(errno_of(os.pread, handle, 1, 50_000))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        # That it waits shows in no file; whether it has begun or not, it is told of the end.
        assert running.end() == 0
        thread.join(PATIENCE)
    finally:
        assert errno_of(os.close, handle) in (None, errno.ENOTCONN, errno.ECONNABORTED)
    assert numbers[0] is not None


def refused(*words: str | Path, code: int = 1) -> str:
    """The line of a cowcloopd that does not start."""
    done = run(daemon_path(), *words, expect=code)
    return one_line(done.stderr.decode().replace("cowcloopd: error:", "cowcloop:", 1))


def test_what_does_not_start(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    assert "name the directory" in refused("fuse", f"image={image}", code=2)
    assert "no such door" in refused("nfs", folder, f"image={image}", code=2)
    assert "image: missing" in refused("fuse", folder, code=2)
    assert "-o shiny" in refused("fuse", folder, "-o", "shiny", f"image={image}", code=2)
    assert "cannot open the image" in refused("fuse", folder, f"image={tmp_path}/none")
    assert "No such file" in refused("fuse", tmp_path / "none", f"image={image}")
    assert "not a directory" in refused("fuse", image, f"image={image}")
    cow = tmp_path / "c"
    with daemon(folder, f"image={image}", f"cow={cow}"):
        assert "in use" in refused("fuse", folder, f"image={image}", f"cow={cow}")
    assert os.listdir(folder) == []


def test_a_supervisor_that_does_not_listen(image: Path, tmp_path: Path) -> None:
    """It is told when the file system is there already."""
    folder = tmp_path / "f"
    folder.mkdir()
    words: list[str | Path] = [daemon_path(), "fuse", folder, f"image={image}", f"cow={tmp_path}/c"]
    with open(os.devnull, "rb") as nobody:
        number = nobody.fileno()
        done = subprocess.run(
            [*words, f"--supervisor={number}"],
            pass_fds=[number],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    assert "the supervisor does not listen" in done.stderr.decode()
    assert not os.path.ismount(folder)
    assert os.listdir(folder) == []
    assert b"clean" in cowcloop("info", tmp_path / "c").stdout


def test_its_own_words() -> None:
    version = run(daemon_path(), "--version").stdout.decode()
    assert version.startswith("cowcloopd ")
    shown = run(daemon_path(), "--help").stdout.decode()
    assert "fuse DIR" in shown
    assert "lifeline=" in shown


@pytest.mark.usefixtures("loop")
def test_a_writer_on_a_mounted_ext2(chicken: Path, tmp_path: Path) -> None:
    """A crash in the middle of its work: what was synced is there, and can be gone on with."""
    cow, place = tmp_path / "c", tmp_path / "mnt"
    data = random.Random(5).randbytes(300_000)
    running = Daemon(tmp_path / "f", f"image={chicken}", f"cow={cow}")
    with on_loop(running.disk, place):
        (place / "kept").write_bytes(data)
        run("sync", "-f", place)
        # An ext2 without a journal flushes before the last of its blocks are written.
        run("sync", running.disk)
        script = 'i=0; while :; do i=$((i+1)); echo $i > "$1/more$((i % 50))"; done'
        writer = subprocess.Popen(
            ["sh", "-c", script, "sh", place], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        wait_until((place / "more20").exists, "the writer")
        running.process.kill()
        running.process.wait(PATIENCE)
        writer.kill()
        writer.wait(PATIENCE)
    running.kill()
    for _ in range(2):
        with daemon(tmp_path / "f", f"image={chicken}", f"cow={cow}") as again:
            # 1: there was something to correct.
            e2fsck = program("e2fsck", "e2fsprogs")
            assert run(e2fsck, "-fy", again.disk, expect=None).returncode <= 1
            with on_loop(again.disk, place):
                assert (place / "kept").read_bytes() == data
                (place / "after").write_text("the crash")
