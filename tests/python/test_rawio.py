"""What io.RawIOBase promises: a disk behaves as Python's own unbuffered file does."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cowcloop
import pytest
from support import cloop

BLOCK = 4096
PLAIN = (b"a line\n" * 700 + bytes(range(256)) * 30).ljust(4 * BLOCK, b"\n")
SIZE = len(PLAIN)

#: Each is done to both files in turn, from where the one before has left the position.
STEPS: dict[str, Callable[[Any], object]] = {
    "readable": lambda file: (file.readable(), file.writable(), file.seekable(), file.isatty()),
    "mode": lambda file: file.mode,
    "read 10": lambda file: file.read(10),
    "read 0": lambda file: file.read(0),
    "read a float": lambda file: file.read(1.5),
    "readline": lambda file: file.readline(),
    "readline, 3 at most": lambda file: file.readline(3),
    "next": lambda file: next(file),
    "readlines": lambda file: file.readlines(50),
    "readinto": lambda file: _into(file, bytearray(33)),
    "readinto nothing": lambda file: _into(file, bytearray()),
    "readinto a part": lambda file: _into(file, memoryview(bytearray(40))[10:30]),
    "readinto rows": lambda file: _into(file, memoryview(bytearray(48)).cast("B", (6, 8))),
    "readinto bytes": lambda file: file.readinto(b"read-only"),
    "readinto a read-only view": lambda file: file.readinto(memoryview(b"read-only")),
    "readinto text": lambda file: file.readinto("text"),
    "readinto every second": lambda file: file.readinto(memoryview(bytearray(20))[::2]),
    "write": lambda file: file.write(b"written"),
    "write nothing": lambda file: file.write(b""),
    "write text": lambda file: file.write("text"),
    "write every second": lambda file: file.write(memoryview(b"every second")[::2]),
    "write lines": lambda file: file.writelines([b"one\n", bytearray(b"two\n")]),
    "seek": lambda file: file.seek(100),
    "seek on": lambda file: file.seek(30, os.SEEK_CUR),
    "seek back": lambda file: file.seek(-5, os.SEEK_CUR),
    "seek an index": lambda file: file.seek(_Index(77)),
    "seek a float": lambda file: file.seek(1.5),
    "seek text": lambda file: file.seek("1"),
    "seek too far": lambda file: file.seek(1 << 63),
    "seek much too far": lambda file: file.seek(1 << 70),
    "read lines to the end": lambda file: list(file),
    "read at the end": lambda file: (file.read(5), file.read(), file.readall(), file.readline()),
    "next at the end": lambda file: next(file),
    "seek from the end": lambda file: file.seek(-20, os.SEEK_END),
    "read more than there is": lambda file: file.read(100),
    "seek beyond the end": lambda file: file.seek(SIZE + 1000),
    "read beyond the end": lambda file: (file.read(5), file.read(), _into(file, bytearray(4))),
    "seek to the start": lambda file: file.seek(0),
    "read all": lambda file: file.read(None),
    "seek to 7": lambda file: file.seek(7),
    "readall": lambda file: file.readall(),
    "flush": lambda file: file.flush(),
    "detach": lambda file: file.detach(),
    "close": lambda file: file.close(),
    "close again": lambda file: file.close(),
    "closed": lambda file: file.closed,
    "mode when closed": lambda file: file.read(1),
    "seek when closed": lambda file: file.seek(0),
    "tell when closed": lambda file: file.tell(),
    "write when closed": lambda file: file.write(b""),
    "readinto when closed": lambda file: file.readinto(bytearray(1)),
    "truncate when closed": lambda file: file.truncate(),
    "fileno when closed": lambda file: file.fileno(),
    "isatty when closed": lambda file: file.isatty(),
    "flush when closed": lambda file: file.flush(),
    "enter when closed": lambda file: file.__enter__(),
    "next when closed": lambda file: next(file),
    "lines when closed": lambda file: file.readlines(),
}


class _Index:
    """An integer as NumPy's are: no int, but usable as one."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def _into(file: Any, buffer: bytearray | memoryview) -> tuple[object, bytes]:
    return file.readinto(buffer), bytes(buffer)


def _outcome(step: Callable[[Any], object], file: Any) -> tuple[object, BaseException | None]:
    try:
        return step(file), None
    except Exception as error:
        return None, error


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK))
    return path


@pytest.fixture
def disk(image: Path, tmp_path: Path) -> Iterator[cowcloop.Disk]:
    with cowcloop.open(image, tmp_path / "c") as disk:
        yield disk


def test_every_step_ends_as_with_an_unbuffered_file(disk: cowcloop.Disk, tmp_path: Path) -> None:
    peer_path = tmp_path / "peer"
    peer_path.write_bytes(PLAIN)
    with peer_path.open("r+b", buffering=0) as peer:
        for name, step in STEPS.items():
            expected, refusal = _outcome(step, peer)
            found, error = _outcome(step, disk)
            assert (name, found) == (name, expected)
            if refusal is None:
                assert error is None, f"{name}: {error!r}"
            else:
                assert isinstance(error, type(refusal)), f"{name}: {error!r}, not {refusal!r}"
                assert error is None or isinstance(error, StopIteration) or str(error), name
            assert disk.closed == peer.closed
            if not peer.closed:
                assert (name, disk.tell()) == (name, peer.tell())


def test_it_has_no_descriptor(disk: cowcloop.Disk) -> None:
    with pytest.raises(io.UnsupportedOperation, match="fileno"):
        disk.fileno()


def test_a_refused_change_says_what_it_is_to_every_caller(disk: cowcloop.Disk, image: Path) -> None:
    """To a library that knows io alone, to one that looks at errno, and to ours."""
    kinds: list[type[Exception]] = [io.UnsupportedOperation, OSError, ValueError]
    kinds.append(cowcloop.CowcloopError)
    for kind in kinds:
        with pytest.raises(kind, match="fixed size"):
            disk.truncate(0)
    with cowcloop.open(image) as read_only:
        for kind in [*kinds, cowcloop.ReadOnlyError]:
            with pytest.raises(kind, match=r"i\.img is open read-only"):
                read_only.write(b"x")
        with pytest.raises(OSError, match="read-only") as caught:
            read_only.pwrite(b"x", 0)
        assert caught.value.errno == errno.EROFS


def test_it_can_be_buffered_both_ways(disk: cowcloop.Disk) -> None:
    both = io.BufferedRandom(disk)
    assert both.read(7) == b"a line\n"
    both.write(b"A LINE\n")
    both.seek(0)
    assert both.readline() == b"a line\n"
    assert both.readline() == b"A LINE\n"
    both.seek(-1, os.SEEK_END)
    both.write(b"12")
    with pytest.raises(cowcloop.NoSpaceError):
        both.flush()
    # The byte too many stays in the buffer, so closing fails as well, and closes all the same.
    with pytest.raises(cowcloop.NoSpaceError):
        both.close()
    assert disk.closed


def test_text_can_be_read_through_it(image: Path) -> None:
    with io.TextIOWrapper(io.BufferedReader(cowcloop.open(image)), encoding="latin-1") as text:
        assert next(text) == "a line\n"


def test_closing_between_look_and_use_is_no_other_error(image: Path) -> None:
    """Another thread may close the disk right after this one has found it open."""

    class Closing(cowcloop.Disk):
        armed = False

        @property
        def closed(self) -> bool:
            if self.armed:
                self.armed = False
                other = threading.Thread(target=self.close)
                other.start()
                other.join()
                return False
            return super().closed

    disk = Closing(image)
    disk.armed = True
    for _ in range(2):
        with pytest.raises(ValueError, match="closed file"):
            disk.pread(7, 0)
