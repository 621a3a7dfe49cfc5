"""A sync that failed, on real file systems: what is seen once the device is attached again
and a flush was acknowledged survives a power cut.

Linux takes pages that it could not write back for clean, and goes on showing them: what is
read after a failed sync need not be on the medium, and the next sync does not put it there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import nbdclient
from support.failing_disk import MKFS, FailingDisk, GaveUpError, failing_disk
from support.programs import cowcloop
from support.server import Server

KIB = 1024
#: A block whose bit lies in the second page of the bitmap: the first one is written with
#: each head.
FAR = 32 << 20
SIZE = 40 << 20

pytestmark = pytest.mark.usefixtures("loop", "fuse")


#: Disks on which a scenario is tried: btrfs may write metadata while the disk fails, and then
#: makes itself read-only.
DISKS = 5


def on_every_kind(scenario: Callable[[FailingDisk, Path, Path], None]) -> Callable[..., None]:
    """The scenario as a test, on a file system of each kind."""

    @pytest.mark.parametrize("kind", MKFS)
    def test(kind: str, base: Path, tmp_path: Path) -> None:
        for number in range(DISKS):
            folder = tmp_path / str(number)
            folder.mkdir()
            with contextlib.suppress(GaveUpError):
                with failing_disk(kind, folder) as disk:
                    scenario(disk, base, folder)
                return
        pytest.fail(f"{kind} gave up on {DISKS} disks")

    return test


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.raw"
    path.write_bytes(b"b" * (64 << 10))
    os.truncate(path, SIZE)
    return path


def fill(number: int) -> bytes:
    return bytes([number]) * KIB


def sync(path: Path) -> None:
    """What the kernel does by itself after a while."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def flush_fails(disk: FailingDisk, server: Server) -> None:
    """A flush of a disk that fails, and recovers."""
    handle = nbdclient.connect(server.uri)
    with disk.failing(), pytest.raises(nbdclient.module().Error):
        handle.flush()
    handle.shutdown()
    disk.require_writable()


def write(server: Server, *pieces: tuple[int, bytes], flush: bool = True) -> None:
    handle = nbdclient.connect(server.uri)
    for at, data in pieces:
        handle.pwrite(data, at)
    if flush:
        handle.flush()
    handle.shutdown()


def read(server: Server, at: int) -> bytes:
    handle = nbdclient.connect(server.uri)
    data = bytes(handle.pread(KIB, at))
    handle.shutdown()
    return data


def device_after_a_cut(disk: FailingDisk, base: Path, tmp_path: Path) -> bytes:
    cow = disk.after_a_cut("c.cow", tmp_path)
    plain = tmp_path / "plain"
    cowcloop("extract", base, cow, plain)
    return plain.read_bytes()


@on_every_kind
def test_bits_that_did_not_reach_the_medium(disk: FailingDisk, base: Path, tmp_path: Path) -> None:
    cow = disk.folder / "c.cow"
    first = Server(base, cow)
    write(first, (FAR, fill(1)))
    write(first, (FAR + 8 * KIB, fill(2)), flush=False)
    # The data is on the medium: the bitmap alone fails.
    sync(cow)
    flush_fails(disk, first)
    first.stop()

    disk.require_writable()
    second = Server(base, cow)
    seen = read(second, FAR + 8 * KIB)
    write(second, (0, fill(3)))
    after = device_after_a_cut(disk, base, tmp_path)
    assert after[FAR : FAR + KIB] == fill(1)
    assert after[:KIB] == fill(3)
    assert after[FAR + 8 * KIB :][:KIB] == seen
    second.stop()


@on_every_kind
def test_data_that_did_not_reach_the_medium(disk: FailingDisk, base: Path, tmp_path: Path) -> None:
    cow = disk.folder / "c.cow"
    first = Server(base, cow)
    write(first, (FAR, fill(1)))
    write(first, (FAR, fill(2)), flush=False)
    flush_fails(disk, first)
    first.stop()

    disk.require_writable()
    second = Server(base, cow)
    seen = read(second, FAR)
    assert seen in (fill(1), fill(2))
    write(second, (0, fill(3)))
    after = device_after_a_cut(disk, base, tmp_path)
    assert after[FAR : FAR + KIB] == seen
    assert after[:KIB] == fill(3)
    second.stop()


@on_every_kind
def test_a_clean_end_after_a_failed_sync_needs_no_repair(
    disk: FailingDisk, base: Path, tmp_path: Path
) -> None:
    cow = disk.folder / "c.cow"
    first = Server(base, cow)
    write(first, (FAR, fill(1)))
    write(first, (FAR + 8 * KIB, fill(2)), flush=False)
    sync(cow)
    flush_fails(disk, first)
    first.stop()

    disk.require_writable()
    second = Server(base, cow)
    seen = read(second, FAR + 8 * KIB)
    assert second.stop() == 0
    after = device_after_a_cut(disk, base, tmp_path)
    assert after[FAR : FAR + KIB] == fill(1)
    assert after[FAR + 8 * KIB :][:KIB] == seen


@on_every_kind
def test_a_lower_cowfile_that_a_crash_left(disk: FailingDisk, base: Path, tmp_path: Path) -> None:
    lower = disk.folder / "lower.cow"
    first = Server(base, lower)
    write(first, (FAR, fill(1)))
    write(first, (FAR, fill(2)), flush=False)
    os.kill(first.nbdkit_pid(), 9)
    first.wait()

    upper = disk.folder / "upper.cow"
    second = Server(base, lower, upper)
    seen = read(second, FAR)
    write(second, (0, fill(3)))
    plain = tmp_path / "plain"
    folder = tmp_path / "copies"
    folder.mkdir()
    found = [disk.after_a_cut(name, folder) for name in ("lower.cow", "upper.cow")]
    cowcloop("extract", base, *found, plain)
    after = plain.read_bytes()
    assert after[FAR : FAR + KIB] == seen
    assert after[:KIB] == fill(3)
    second.stop()
