"""The device as a file object: io.RawIOBase's rules, and positional access."""

from __future__ import annotations

import array
import copy
import io
import mmap
import os
import pickle
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cowcloop
import pytest
from support import cloop

BLOCK = 4096
SIZE = 40 * BLOCK


@pytest.fixture(scope="module")
def plain() -> bytes:
    """What the device holds before anything is written."""
    return cloop.sample(SIZE, BLOCK)


@pytest.fixture
def image(tmp_path: Path, plain: bytes) -> Path:
    path = tmp_path / "base.img"
    path.write_bytes(cloop.build(plain, BLOCK))
    return path


@pytest.fixture
def cow(tmp_path: Path) -> Path:
    return tmp_path / "base.cow"


def test_a_disk_is_a_raw_binary_file(image: Path, plain: bytes) -> None:
    with cowcloop.open(image) as disk:
        assert isinstance(disk, io.RawIOBase)
        assert disk.readable()
        assert disk.seekable()
        assert not disk.writable()
        assert not disk.isatty()
        assert disk.size == len(plain)
        assert disk.mode == "rb"
        assert disk.name == os.fspath(image)
        assert disk.read() == plain
        assert disk.read(1) == b""
    assert disk.closed


def test_it_reads_from_where_it_was_sought(image: Path, plain: bytes) -> None:
    with cowcloop.open(image) as disk:
        assert disk.seek(1000) == 1000
        assert disk.read(24) == plain[1000:1024]
        assert disk.tell() == 1024
        assert disk.seek(-24, os.SEEK_CUR) == 1000
        assert disk.seek(-10, os.SEEK_END) == SIZE - 10
        assert disk.read(100) == plain[-10:]
        assert disk.seek(SIZE + 5) == SIZE + 5
        assert disk.read(10) == b""
        assert disk.readall() == b""
        disk.seek(SIZE - 3)
        assert disk.readall() == plain[-3:]


def test_seeking_to_nowhere_is_refused_and_changes_nothing(image: Path) -> None:
    with cowcloop.open(image) as disk:
        disk.seek(7)
        with pytest.raises(ValueError, match="negative seek position -1"):
            disk.seek(-1)
        with pytest.raises(ValueError, match="negative seek position"):
            disk.seek(-SIZE - 1, os.SEEK_END)
        with pytest.raises(ValueError, match="whence 9"):
            disk.seek(0, 9)
        assert disk.tell() == 7


def test_readinto_takes_any_writable_buffer(image: Path, plain: bytes) -> None:
    with cowcloop.open(image) as disk, mmap.mmap(-1, BLOCK) as mapped:
        for buffer in (bytearray(BLOCK), array.array("I", bytes(BLOCK)), mapped):
            disk.seek(513)
            assert disk.readinto(buffer) == BLOCK
            assert bytes(memoryview(buffer).cast("B")) == plain[513 : 513 + BLOCK]
        part = bytearray(b"." * 100)
        assert disk.pread_into(memoryview(part)[10:20], 5) == 10
        assert part == b"." * 10 + plain[5:15] + b"." * 80
        assert disk.pread_into(bytearray(), 0) == 0


def test_only_the_bytes_that_there_are_get_overwritten(image: Path, plain: bytes) -> None:
    with cowcloop.open(image) as disk:
        buffer = bytearray(b"." * 100)
        assert disk.pread_into(buffer, SIZE - 40) == 40
        assert buffer == plain[-40:] + b"." * 60
        assert disk.pread_into(buffer, SIZE) == 0
        assert disk.pread_into(buffer, 1 << 62) == 0


def test_buffers_that_will_not_do_are_refused(image: Path, cow: Path) -> None:
    with cowcloop.open(image, cow) as disk:
        with pytest.raises(BufferError):
            disk.pread_into(b"read-only", 0)
        with pytest.raises(BufferError):
            disk.pread_into(memoryview(bytearray(20))[::2], 0)
        with pytest.raises(BufferError):
            disk.pwrite(memoryview(b"every second")[::2], 0)
        with pytest.raises(TypeError):
            disk.pread_into("text", 0)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            disk.write("text")  # type: ignore[arg-type]


def test_a_buffer_is_given_back(image: Path) -> None:
    buffer = bytearray(10)
    with cowcloop.open(image) as disk:
        disk.pread_into(buffer, 0)
        with pytest.raises(ValueError, match="negative"):
            disk.pread_into(buffer, -1)
    # A bytearray refuses to grow while a view of it exists.
    buffer.extend(b"more")


def test_what_is_written_is_read_and_kept(image: Path, cow: Path, plain: bytes) -> None:
    expected = bytearray(plain)
    with cowcloop.open(image, cow) as disk:
        assert disk.writable()
        assert disk.mode == "rb+"
        disk.seek(5000)
        assert disk.write(b"hello") == 5
        assert disk.tell() == 5005
        assert disk.write(array.array("I", [1, 2, 3])) == 12
        assert disk.pwrite(memoryview(b"xyz")[1:], 0) == 2
        assert disk.tell() == 5017
        expected[5000:5017] = b"hello" + array.array("I", [1, 2, 3]).tobytes()
        expected[0:2] = b"yz"
        assert disk.pread(SIZE, 0) == expected
        disk.flush()
    before = image.read_bytes()
    with cowcloop.open(image, cow) as disk:
        assert disk.read() == expected
    assert image.read_bytes() == before


def test_writes_stop_at_the_end(image: Path, cow: Path) -> None:
    with cowcloop.open(image, cow) as disk:
        assert disk.pwrite(b"12345", SIZE - 2) == 2
        assert disk.pread(10, SIZE - 2) == b"12"
        disk.seek(SIZE)
        with pytest.raises(cowcloop.NoSpaceError, match=f"the device ends at {SIZE}") as caught:
            disk.write(b"x")
        assert isinstance(caught.value, OSError)
        assert disk.write(b"") == 0


def test_zeroes_and_discards_show_in_the_extents(image: Path, cow: Path, plain: bytes) -> None:
    with cowcloop.open(image, cow) as disk:
        disk.pwrite(b"\xff" * SIZE, 0)
        assert disk.extents() == [cowcloop.Extent(0, SIZE, zero=False)]
        disk.write_zeroes(BLOCK, 2 * BLOCK)
        disk.trim(3 * BLOCK, BLOCK)
        assert disk.extents(0, 5 * BLOCK) == [
            (0, BLOCK, False),
            (BLOCK, 3 * BLOCK, True),
            (4 * BLOCK, BLOCK, False),
        ]
        assert disk.extents(SIZE) == []
        assert disk.extents(SIZE + 1) == []
        assert disk.pread(4 * BLOCK, 0) == b"\xff" * BLOCK + bytes(3 * BLOCK)
        with pytest.raises(cowcloop.InvalidInputError, match="beyond the device"):
            disk.write_zeroes(SIZE, 1)


def test_extents_cover_the_device(image: Path, plain: bytes) -> None:
    with cowcloop.open(image) as disk:
        extents = disk.extents()
        at = 0
        for extent in extents:
            assert extent.offset == at
            at += extent.length
            if extent.zero:
                assert not any(plain[extent.offset : at])
        assert at == SIZE


def test_a_read_only_disk_refuses_changes(image: Path, cow: Path) -> None:
    cowcloop.open(image, cow).close()
    for disk in (cowcloop.open(image), cowcloop.open(image, cow, read_only=True)):
        with disk:
            changes: list[Callable[[], object]] = [
                partial(disk.write, b"x"),
                partial(disk.pwrite, b"x", 0),
                partial(disk.write_zeroes, 0, 1),
                partial(disk.trim, 0, 1),
            ]
            for change in changes:
                with pytest.raises(io.UnsupportedOperation, match="open read-only"):
                    change()
            disk.flush()


def test_truncate_is_refused_whatever_the_size(image: Path, cow: Path) -> None:
    with cowcloop.open(image, cow) as disk:
        for size in (None, 0, SIZE, SIZE + 1):
            with pytest.raises(io.UnsupportedOperation, match="fixed size"):
                disk.truncate(size)
        assert disk.size == SIZE


def test_a_closed_disk_refuses_everything(image: Path, cow: Path) -> None:
    disk = cowcloop.open(image, cow)
    disk.close()
    disk.close()
    for use in (
        disk.read,
        disk.tell,
        disk.readable,
        disk.writable,
        disk.seekable,
        disk.flush,
        disk.status,
        disk.extents,
        disk.truncate,
        lambda: disk.size,
        lambda: disk.mode,
        lambda: disk.seek(0),
        lambda: disk.readinto(bytearray(1)),
        lambda: disk.write(b"x"),
        lambda: disk.pread(1, 0),
        lambda: disk.pwrite(b"x", 0),
        lambda: disk.__enter__(),
    ):
        with pytest.raises(ValueError, match="closed file"):
            use()
    assert repr(disk) == f"<cowcloop.Disk {os.fspath(image)!r} (closed)>"


def test_negative_offsets_and_lengths_are_refused(image: Path, cow: Path) -> None:
    with cowcloop.open(image, cow) as disk:
        for use in (
            lambda: disk.pread(-1, 0),
            lambda: disk.pread(1, -1),
            lambda: disk.pwrite(b"x", -1),
            lambda: disk.extents(-1),
            lambda: disk.extents(0, -1),
            lambda: disk.trim(-1, 1),
            lambda: disk.write_zeroes(0, -1),
        ):
            with pytest.raises(ValueError, match="-1 is negative"):
                use()
        with pytest.raises(OverflowError):
            disk.pread(1, 1 << 64)


def test_it_is_not_pickled_nor_copied(image: Path) -> None:
    with cowcloop.open(image) as disk:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="cannot be pickled or copied: open it again"):
                pickle.dumps(disk, protocol)
        for copier in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="or copied"):
                copier(disk)


def test_an_unclosed_disk_is_closed_with_a_warning(image: Path, cow: Path) -> None:
    disk = cowcloop.open(image, cow)
    disk.pwrite(b"kept", 0)
    with pytest.warns(ResourceWarning, match="unclosed <cowcloop.Disk"):
        del disk
    assert cowcloop.cow_info(cow).state == "clean"
    with cowcloop.open(image, cow) as disk:
        assert disk.pread(4, 0) == b"kept"


def test_a_closed_disk_has_let_go_of_its_cowfile(image: Path, cow: Path) -> None:
    """An object may outlive its use: here the frames of an error hold it, as in a debugger."""
    disk = cowcloop.open(image, cow)
    with pytest.raises(ValueError, match="negative") as kept:
        disk.seek(-1)
    disk.close()
    cowcloop.open(image, cow).close()
    assert kept.tb is not None


def test_a_disk_that_could_not_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cowcloop.open(tmp_path / "missing.img", tmp_path / "new.cow")
    assert list(tmp_path.iterdir()) == []


def test_a_throw_away_overlay_is_thrown_away(image: Path, tmp_path: Path, plain: bytes) -> None:
    with cowcloop.open(image, ":memory:") as disk:
        disk.write(b"gone tomorrow")
        assert disk.pread(13, 0) == b"gone tomorrow"
    with cowcloop.open(image, ":memory:") as disk:
        assert disk.read() == plain
    assert [path.name for path in tmp_path.iterdir()] == [image.name]


def test_cowfiles_stack(image: Path, tmp_path: Path, plain: bytes) -> None:
    lower, upper = tmp_path / "lower.cow", tmp_path / "upper.cow"
    with cowcloop.open(image, lower) as disk:
        disk.pwrite(b"L" * 2048, 0)
    with cowcloop.open(image, lower, upper) as disk:
        disk.pwrite(b"U" * 1024, 1024)
        assert disk.pread(3072, 0) == b"L" * 1024 + b"U" * 1024 + plain[2048:3072]
    with cowcloop.open(image, lower) as disk:
        assert disk.pread(2048, 0) == b"L" * 2048


def test_status_counts(image: Path, cow: Path) -> None:
    with cowcloop.open(image, cow) as disk:
        disk.pwrite(bytes(1024), 0)
        disk.pwrite(b"x" * 2048, 10240)
        disk.flush()
        status = disk.status()
    assert isinstance(status, cowcloop.DiskStatus)
    assert status.image == os.fspath(image)
    assert status.size == SIZE
    assert not status.read_only
    (cowfile,) = status.cowfiles
    assert cowfile.path == os.fspath(cow)
    assert cowfile.blocks_total == SIZE // 1024
    assert 2 <= cowfile.blocks_used <= 3
    assert cowfile.writes == 2
    assert cowfile.flushes == 1


def test_buffered_readers_and_archives_take_it(tmp_path: Path) -> None:
    archive = io.BytesIO()
    content = os.urandom(100_000)
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("folder/file")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    image = tmp_path / "tar.img"
    image.write_bytes(cloop.build(archive.getvalue(), 512))
    with cowcloop.open(image) as disk, tarfile.open(fileobj=disk) as tar:
        found = tar.extractfile("folder/file")
        assert found is not None
        assert found.read() == content
    with io.BufferedReader(cowcloop.open(image)) as reader:
        assert reader.peek(5)[:5] == b"folde"
        assert reader.read() == cloop.padded(archive.getvalue(), 512)


def test_many_threads_read_and_write_their_own_places(image: Path, cow: Path) -> None:
    rounds = 30

    def work(number: int) -> None:
        mine = bytes([number + 1]) * 1500
        at = number * 3000 + 7
        buffer = bytearray(1500)
        for _ in range(rounds):
            assert disk.pwrite(mine, at) == 1500
            assert disk.pread_into(buffer, at) == 1500
            assert buffer == mine
            assert disk.pread(1500, at) == mine
        disk.flush()

    with cowcloop.open(image, cow) as disk, ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))


def test_threads_that_share_the_position_get_every_byte_once(image: Path, plain: bytes) -> None:
    pieces: list[bytes] = []

    def work() -> None:
        while True:
            piece = disk.read(512)
            if not piece:
                return
            pieces.append(piece)

    with cowcloop.open(image) as disk:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = [plain[at : at + 512] for at in range(0, SIZE, 512)]
    assert sorted(pieces) == sorted(expected)


def test_closing_under_readers_harms_none(image: Path, cow: Path, plain: bytes) -> None:
    disk = cowcloop.open(image, cow)
    started = threading.Barrier(5)

    def work() -> int:
        started.wait()
        count = 0
        while True:
            try:
                assert disk.pread(1024, 2048) == plain[2048:3072]
            except ValueError:
                return count
            count += 1

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(work) for _ in range(4)]
        started.wait()
        disk.close()
        assert all(result.result() >= 0 for result in results)
    assert cowcloop.cow_info(cow).state == "clean"


@pytest.mark.parametrize("level", [0, 1, 9])
def test_small_cold_reads_anywhere_in_a_block(tmp_path: Path, level: int) -> None:
    """A part of a block is decoded for these, whatever the block is made of."""
    block = 65536
    plain = cloop.sample(6 * block, block)
    path = tmp_path / "base.img"
    path.write_bytes(cloop.build(plain, block, level=level))
    for begin in range(0, len(plain), block):
        for at in (0, 7, 4096, 30_000, block - 100):
            with cowcloop.open(path) as disk:
                assert disk.pread(1000, begin + at) == plain[begin + at :][:1000]


def test_sizes_may_be_text(tmp_path: Path) -> None:
    raw = tmp_path / "r"
    raw.write_bytes(bytes(4096))
    with cowcloop.open(raw, ":memory:", cache="8M", memory_limit="1M", size="64K") as disk:
        assert disk.size == 65536
    with pytest.raises(ValueError, match="'8X' is not a size"):
        cowcloop.open(raw, cache="8X")
