"""Servers that are killed under a live device, and others that take over from them."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import cloop
from support.daemon import KEEP_SIZE, PUNCH_HOLE, Daemon, daemon, fallocate, on_loop
from support.programs import PATIENCE, cowcloop, program, run
from support.server import wait_until

pytestmark = pytest.mark.usefixtures("fuse", "sends_again")

SIZE = len(cloop.PLAIN) // 1024 * 1024
#: Kills under the writers of a mounted file system.
KILLS = 100


@pytest.fixture
def disk(image: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A supervised device with a cowfile."""
    words = (f"image={image}", f"cow={tmp_path}/c")
    with daemon(tmp_path / "f", *words, supervised=True) as running:
        yield running


def direct(disk: Path) -> int:
    """The file, opened so that each request goes to the server before it returns."""
    return os.open(disk, os.O_RDWR | os.O_DIRECT)


def test_what_was_acknowledged_is_there(image: Path, tmp_path: Path) -> None:
    """Nothing is flushed in between; the third server has the writes of the first."""
    disk = Daemon(tmp_path / "f", f"image={image}", f"cow={tmp_path}/c", supervised=True)
    plain = bytearray(cloop.PLAIN[:SIZE])
    numbers = random.Random(3)
    with mmap.mmap(-1, 8192) as page:
        file = direct(disk.disk)
        try:
            for _ in range(3):
                for _ in range(20):
                    at = numbers.randrange(SIZE // 4096 - 2) * 4096
                    page[:] = numbers.randbytes(len(page))
                    assert os.pwrite(file, page, at) == len(page)
                    plain[at : at + len(page)] = page[:]
                at = numbers.randrange(SIZE // 4096 - 2) * 4096
                fallocate(file, KEEP_SIZE | PUNCH_HOLE, at, 4096)
                plain[at : at + 4096] = bytes(4096)
                disk.kill_server()
                with disk.disk.open("rb") as fresh:
                    os.posix_fadvise(fresh.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    assert fresh.read(SIZE) == plain
        finally:
            os.close(file)
    status = disk.ask("status")
    assert status["restarts"] == 3
    assert status["cowfiles"][0]["kept"]["taken_over"] > 0
    assert disk.end() == 0
    assert b"clean" in cowcloop("info", tmp_path / "c").stdout
    cowcloop("extract", image, tmp_path / "c", tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[:SIZE] == plain


def test_a_request_that_waits_is_answered_by_the_next_server(disk: Daemon) -> None:
    disk.ask("suspend")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(disk.disk.read_bytes()[:SIZE]))
    reader.start()
    # The next server knows nothing of the suspension.
    disk.kill_server()
    reader.join(PATIENCE)
    assert found == [cloop.PLAIN[:SIZE]]


def test_a_server_is_replaced_when_its_supervisor_is_told_so(disk: Daemon) -> None:
    first = disk.server()
    disk.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: disk.server() not in (None, first), "another server")
    assert disk.disk.read_bytes()[:SIZE] == cloop.PLAIN[:SIZE]


def test_servers_that_fail_are_followed_by_others(image: Path, tmp_path: Path) -> None:
    """The image is gone for a while: a reader waits for as long."""
    disk = Daemon(tmp_path / "f", f"image={image}", f"cow={tmp_path}/c", supervised=True)
    first = disk.server()
    assert first is not None
    image.rename(tmp_path / "moved")
    os.kill(first, signal.SIGKILL)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(disk.disk.read_bytes()[:SIZE]))
    reader.start()
    wait_until(lambda: not disk.socket.exists(), "the end of the first server")
    (tmp_path / "moved").rename(image)
    reader.join(PATIENCE)
    assert found == [cloop.PLAIN[:SIZE]]
    assert disk.end() == 0


def test_an_end_that_is_wished_between_two_servers_is_a_clean_one(
    image: Path, tmp_path: Path
) -> None:
    """The next server is started for it: nothing of what was acknowledged is lost."""
    disk = Daemon(tmp_path / "f", f"image={image}", f"cow={tmp_path}/c", supervised=True)
    first = disk.server()
    assert first is not None
    with mmap.mmap(-1, 4096) as page:
        page[:] = data = random.Random(4).randbytes(len(page))
        file = direct(disk.disk)
        assert os.pwrite(file, page, 0) == len(page)
        os.close(file)
    image.rename(tmp_path / "moved")
    os.kill(first, signal.SIGKILL)
    assert disk.process.stderr is not None
    # The pauses have become long by then.
    for _ in range(4):
        while "ended with exit code 1" not in disk.process.stderr.readline():
            assert disk.process.poll() is None
    (tmp_path / "moved").rename(image)
    assert disk.end() == 0
    assert b"clean" in cowcloop("info", tmp_path / "c").stdout
    cowcloop("extract", image, tmp_path / "c", tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[:SIZE] == data + cloop.PLAIN[4096:SIZE]


@pytest.mark.parametrize("what", ["image", "cowfile", "no cowfile"])
def test_a_server_of_something_else_does_not_take_over(
    what: str, image: Path, tmp_path: Path
) -> None:
    """It would show the device's users another one; what it has kept waits for the right one."""
    cow, place = tmp_path / "c", tmp_path / "f"
    words = [] if what == "image" else [f"cow={cow}"]
    disk = Daemon(place, f"image={image}", *words, supervised=True)
    plain = bytearray(cloop.PLAIN[:SIZE])
    if words:
        # Not flushed: this server alone knows where it is.
        plain[:4096] = random.Random(5).randbytes(4096)
        with mmap.mmap(-1, 4096) as page:
            page[:] = plain[:4096]
            file = direct(disk.disk)
            assert os.pwrite(file, page, 0) == len(page)
            os.close(file)
    replaced = cow if words else image
    right = tmp_path / "right"
    replaced.rename(right)
    if what == "image":
        # In the script at the beginning: all that tells the images apart.
        other = bytearray(right.read_bytes())
        other[100] ^= 1
        replaced.write_bytes(other)
    elif what == "cowfile":
        with daemon(tmp_path / "g", f"image={image}", f"cow={cow}") as maker:
            assert maker.disk.stat().st_size == SIZE
    server = disk.server()
    assert server is not None
    os.kill(server, signal.SIGKILL)
    # It has closed what it had opened before it says why.
    told = disk.read_until("error", "ready")
    assert told["event"] == "error"
    assert str(replaced) in told["text"]
    assert ("No such file" if what == "no cowfile" else "put") in told["text"]
    assert replaced.exists() is (what != "no cowfile")
    right.rename(replaced)
    with disk.disk.open("rb") as fresh:
        os.posix_fadvise(fresh.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert fresh.read(SIZE) == plain
    assert disk.end() == 0


def test_what_is_in_memory_alone_is_not_thrown_away(image: Path, tmp_path: Path) -> None:
    words = (f"image={image}", "cow=:memory:")
    with daemon(tmp_path / "f", *words, supervised=True) as running:
        first = running.server()
        running.disk.write_bytes(b"in memory")
        running.process.send_signal(signal.SIGUSR1)
        assert running.process.stderr is not None
        # The first line is the warning at the start.
        lines = [running.process.stderr.readline() for _ in range(2)]
        assert "is not replaced: what is written is in the memory of the server" in lines[1]
        assert running.server() == first
        assert running.disk.read_bytes()[:9] == b"in memory"


def test_what_is_in_memory_ends_with_its_server(image: Path, tmp_path: Path) -> None:
    words = (f"image={image}", "cow=:memory:")
    running = Daemon(tmp_path / "f", *words, supervised=True)
    pid = running.server()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert running.process.wait(PATIENCE) == 128 + signal.SIGKILL
    assert running.process.stderr is not None
    assert "in the memory of the server" in running.process.stderr.read()
    running.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, "lifeline", "unmounted"])
def test_its_end(how: signal.Signals | str, image: Path, tmp_path: Path) -> None:
    """That of a server that has taken over, too, is the device's, and clean."""
    words = (f"image={image}", f"cow={tmp_path}/c")
    running = Daemon(tmp_path / "f", *words, supervised=True)
    running.kill_server()
    running.disk.open("r+b").close()
    if how == "lifeline":
        running.cut()
    elif how == "unmounted":
        run("umount", running.folder)
    assert running.end(how if isinstance(how, signal.Signals) else None) == 0
    assert not os.path.ismount(running.folder)
    assert not running.socket.exists()
    assert b"clean" in cowcloop("info", tmp_path / "c").stdout


@pytest.mark.usefixtures("loop")
def test_writers_on_a_mounted_ext2_see_no_error(chicken: Path, tmp_path: Path) -> None:
    """Programs write, read and sync all the time while one server after the other is killed, on a
    file system that has grown with its device."""
    words = (f"image={chicken}", f"cow={tmp_path}/c", f"size={32 << 20}")
    with daemon(tmp_path / "f", *words, supervised=True) as running:
        run(program("e2fsck", "e2fsprogs"), "-fy", running.disk)
        run(program("resize2fs", "e2fsprogs"), running.disk)
        with on_loop(running.disk, tmp_path / "mnt") as place:
            writers = [Writer(place, number) for number in range(2)]
            with ExitStack() as ends:
                for writer in writers:
                    writer.start()
                    ends.callback(writer.end)
                for number in range(KILLS):
                    before = [writer.done for writer in writers]
                    # Of every other one the supervisor is told, and makes no longer pause then.
                    running.kill_server(by_its_supervisor=number % 2 == 1)
                    # Each has done something since; a request of it may have been under way.
                    for writer, done in zip(writers, before, strict=True):
                        wait_until(
                            lambda w=writer, d=done: w.done > d or w.error is not None, "a writer"
                        )
            assert [writer.error for writer in writers] == [None, None]
            run("sync", "-f", place)
            run(program("fstrim", "util-linux"), place)
            for writer in writers:
                writer.check()
            found = os.statvfs(place)
            assert found.f_blocks * found.f_frsize > 16 << 20
        assert running.ask("status")["restarts"] == KILLS
        assert run(program("e2fsck", "e2fsprogs"), "-fn", running.disk).returncode == 0


class Writer(threading.Thread):
    """Writes files of its own, syncs some of them, and reads them again."""

    def __init__(self, place: Path, number: int) -> None:
        super().__init__()
        self.done = 0
        self.error: BaseException | None = None
        self._place = place
        self._number = number
        self._numbers = random.Random(number)
        self._written: dict[Path, bytes] = {}
        self._ended = False

    def run(self) -> None:
        try:
            while not self._ended:
                self._round()
                self.done += 1
        except BaseException as error:
            self.error = error

    def _round(self) -> None:
        path = self._place / f"{self._number}-{self._numbers.randrange(8)}"
        data = self._numbers.randbytes(self._numbers.randrange(1, 200_000))
        with path.open("wb") as file:
            file.write(data)
            if self.done % 3 == 0:
                file.flush()
                os.fsync(file.fileno())
        self._written[path] = hashlib.sha256(data).digest()
        with path.open("rb") as file:
            if self.done % 3 == 0:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read() == data

    def check(self) -> None:
        """All files hold what was last written to them, on the device too."""
        for path, digest in self._written.items():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert hashlib.sha256(file.read()).digest() == digest, path

    def end(self) -> None:
        """Stop it, wherever it is."""
        self._ended = True
        self.join(PATIENCE)
