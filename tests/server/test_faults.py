"""Disks that fill up, bases that shrink: errors to the client, and a server that lives."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cowcloop as cowcloop_package
import pytest
from cowcloop.programs import MissingProgram
from support import cloop, cowfile, images, nbdclient
from support.programs import cowcloop, missing, one_line, program, refused, run
from support.server import Server, alive, attach, children, listed, serving, wait_until

MIB = 1 << 20
BLOCK = 65536
PLAIN = cloop.sample(8 * MIB, BLOCK, 6)
RANDOM = random.Random(1).randbytes(32 * MIB)


def _error(call: Any, *arguments: Any) -> str | None:
    """The errno that a request ended with."""
    try:
        call(*arguments)
    except nbdclient.module().Error as error:
        return str(error.errno)
    return None


@pytest.mark.parametrize("kind", ["raw", "cloop"])
def test_the_base_is_shortened(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "i"
    image.write_bytes(PLAIN if kind == "raw" else cloop.build(PLAIN, BLOCK, level=1))
    cow = tmp_path / "c"
    # Little cache: what was read before must not hide what is gone.
    with serving("--cache", "64K", image, cow, quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        assert handle.pread(4096, 0) == PLAIN[:4096]
        handle.pwrite(b"kept" * 256, 7 * MIB)
        os.truncate(image, image.stat().st_size // 2)
        late = 2 * BLOCK + 7 * MIB
        assert PLAIN[late : late + 512] != b"\0" * 512
        for _ in range(3):
            assert _error(handle.pread, 4096, late) == "EIO"
        assert handle.pread(1024, 7 * MIB) == b"kept" * 256
        assert handle.pread(4096, 4096) == PLAIN[4096:8192]
        handle.pwrite(b"still writable", 100)
        handle.flush()
        os.truncate(image, 0)
        assert _error(handle.pread, 4096, 5 * MIB) == "EIO"
        assert handle.pread(14, 100) == b"still writable"
        assert alive(server.pid)
        handle.shutdown()


def test_the_base_is_replaced(tmp_path: Path) -> None:
    """The open file is what is served, not what comes to lie under its name."""
    image, other = tmp_path / "i", tmp_path / "o"
    image.write_bytes(cloop.build(PLAIN, BLOCK, level=1))
    other.write_bytes(b"another file")
    with serving(image) as server:
        handle = nbdclient.connect(server.uri)
        other.rename(image)
        assert nbdclient.read_all(handle) == PLAIN
        handle.shutdown()


def test_the_disk_fills_up_and_is_freed(tmp_path: Path, tiny_tmpfs: Path) -> None:
    image, cow, filler = tmp_path / "i", tiny_tmpfs / "c", tiny_tmpfs / "filler"
    image.write_bytes(cloop.build(PLAIN, BLOCK, level=1))
    filler.write_bytes(b"f" * (2 * MIB))
    device = bytearray(PLAIN)
    size = 24 * 1024
    server = Server(image, cow)
    try:
        handle = nbdclient.connect(server.uri)
        full = None
        for number in range(len(PLAIN) // size):
            data = bytes([number % 255 + 1]) * size
            failed = _error(handle.pwrite, data, number * size)
            if failed:
                assert failed == "ENOSPC"
                full = number
                break
            device[number * size : (number + 1) * size] = data
        assert full, "the file system never filled up"
        # The range that failed may hold the old or the new bytes; all else is as it was.
        span = slice(full * size, (full + 1) * size)
        found = bytearray(nbdclient.read_all(handle))
        new = bytes([full % 255 + 1])
        assert all(a == b or new == bytes([a]) for a, b in zip(found[span], device[span]))
        found[span] = device[span]
        assert found == device
        # What was written already can be written again, and read, and flushed.
        handle.pwrite(b"again", 0)
        device[:5] = b"again"
        flushed = _error(handle.flush)
        assert flushed in (None, "ENOSPC")
        filler.unlink()
        if flushed is None:
            for number in range(full, full + 10):
                data = bytes([number % 255 + 1]) * size
                handle.pwrite(data, number * size)
                device[number * size : (number + 1) * size] = data
            handle.flush()
            assert nbdclient.read_all(handle) == device
        handle.shutdown()
    finally:
        code = server.stop()
    assert code == 0, server.errors
    assert cowfile.original_refuses(cow, PLAIN) is None
    extracted = cowcloop("extract", image, cow, "-").stdout
    extracted_ok = bytearray(extracted)
    if flushed:
        extracted_ok[span] = device[span]
    assert extracted_ok == device


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """An image of which one block in the middle does not inflate."""
    image = tmp_path / "i"
    data = bytearray(cloop.build(RANDOM, BLOCK, level=1))
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    image.write_bytes(data)
    return image


def _break_off(server: Server) -> None:
    """A client that ends with many requests under way: nbdcopy at a damaged block."""
    run(program("nbdcopy", "libnbd-bin"), server.uri, "null:", expect=1)


@pytest.mark.parametrize("broken_off", [False, True])
def test_sigabrt_ends_the_server(damaged: Path, tmp_path: Path, broken_off: bool) -> None:
    """It is nbdkit's own assertion alone that does not."""
    server = Server(damaged, tmp_path / "c")
    if broken_off:
        _break_off(server)
    os.kill(server.nbdkit_pid(), signal.SIGABRT)
    assert server.wait() == 1
    assert "killed by SIGABRT" in server.errors


def test_a_client_that_breaks_off_takes_no_other_with_it(damaged: Path, tmp_path: Path) -> None:
    """nbdkit 1.32 would die of it."""
    cow = tmp_path / "c"
    server = Server(damaged, cow)
    handle = nbdclient.connect(server.uri)
    handle.pwrite(b"acknowledged", 0)
    for _ in range(5):
        _break_off(server)
    assert handle.pread(12, 0) == b"acknowledged"
    assert nbdclient.connect(server.uri).pread(12, 0) == b"acknowledged"
    handle.pwrite(b"more", 20)
    handle.shutdown()
    assert server.stop() == 0, server.errors
    assert "Assertion" not in server.errors
    assert server.errors.count("is damaged") == 1, server.errors
    assert cowfile.original_refuses(cow, RANDOM) is None
    assert cowfile.parse(cow).blocks[0][:24] == b"acknowledged" + RANDOM[12:20] + b"more"


@pytest.fixture(params=["tmpfs", "ext2", "ext4"])
def small_disk(request: pytest.FixtureRequest, loop: None, tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 12 MiB."""
    kind, folder, disk = request.param, tmp_path / "small", tmp_path / "disk"
    folder.mkdir()
    if kind == "tmpfs":
        mounted = run("mount", "-t", kind, "-o", "size=12m", kind, folder, expect=None)
    else:
        with disk.open("wb") as file:
            file.truncate(12 * MIB)
        run(program("mke2fs", "e2fsprogs"), "-q", "-F", "-m", "0", "-t", kind, disk)
        mounted = run("mount", "-o", "loop", "-t", kind, disk, folder, expect=None)
    if mounted.returncode:
        missing(f"{kind} cannot be mounted")
    yield folder
    wait_until(lambda: run("umount", folder, expect=None).returncode == 0, "umount")
    if kind != "tmpfs":
        run(program("e2fsck", "e2fsprogs"), "-fn", disk)


def test_a_filesystem_is_written_across_a_full_disk(
    tmp_path: Path, small_disk: Path, chicken: Path, ext2: Path
) -> None:
    """What was begun before the disk was full is completed when there is space again."""
    tree, new, out = tmp_path / "tree", tmp_path / "new", tmp_path / "out"
    images.tree(tree, seed=4)
    mke2fs = ("-q", "-F", "-t", "ext2", "-b", "1024", "-d", tree, new, str(images.EXT2_KIB))
    run(program("mke2fs", "e2fsprogs"), *mke2fs)
    old, data, step = ext2.read_bytes(), new.read_bytes(), 64 << 10
    cow, filler = small_disk / "c", small_disk / "filler"
    filler.write_bytes(b"f" * (8 * MIB))
    with serving(chicken, cow, quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        at, times_full = 0, 0
        while at < len(data):
            failed = _error(handle.pwrite, data[at : at + step], at)
            if failed is None:
                at += step
                continue
            assert failed == "ENOSPC"
            times_full += 1
            assert times_full == 1, "there is space again"
            # Everything can be read; of what failed, each byte is the old or the new one.
            found = nbdclient.read_all(handle)
            assert found[:at] == data[:at]
            assert found[at + step :] == old[at + step :]
            both = zip(found[at : at + step], old[at : at + step], data[at : at + step])
            assert all(byte in (before, after) for byte, before, after in both)
            # The bitmap may find no room either; that is no failed sync.
            assert _error(handle.flush) in (None, "ENOSPC")
            filler.unlink()
        assert times_full, "the file system never filled up"
        handle.flush()
        assert nbdclient.read_all(handle) == data
        handle.shutdown()
    assert cowfile.original_refuses(cow, old) is None
    cowcloop("extract", chicken, cow, out)
    assert out.read_bytes() == data
    run(program("e2fsck", "e2fsprogs"), "-fn", out)


def test_a_cowfile_is_not_made_on_a_full_disk(tmp_path: Path, tiny_tmpfs: Path) -> None:
    image, cow = tmp_path / "i", tiny_tmpfs / "c"
    image.write_bytes(cloop.build(PLAIN, BLOCK, level=1))
    with (tiny_tmpfs / "filler").open("wb", buffering=0) as file:
        with pytest.raises(OSError) as caught:  # noqa: PT012, PT011
            while True:
                file.write(b"f" * 4096)
        assert caught.value.errno == errno.ENOSPC
    line = cowcloop("serve", image, cow, expect=1).stderr.decode()
    assert "No space" in line
    assert not cow.exists(), "nothing half made is left"
    (tiny_tmpfs / "filler").unlink()
    with serving(image, cow, quiet=False) as server:
        pass
    one_line(server.errors, ("warning", "MiB are free on its medium", "make room"))


@pytest.mark.parametrize("command", ["serve", "attach"])
def test_full_runtime(tmp_path: Path, tiny_tmpfs: Path, command: str) -> None:
    """It is named, and nothing is left in it."""
    image = tmp_path / "i"
    image.write_bytes(cloop.build(PLAIN[:BLOCK], BLOCK))
    with (tiny_tmpfs / "filler").open("wb", buffering=0) as file:
        with pytest.raises(OSError) as caught:  # noqa: PT012, PT011
            while True:
                file.write(b"f" * 4096)
        assert caught.value.errno == errno.ENOSPC

    def fails(*says: str) -> None:
        line = refused(command, image, says=says, env={"XDG_RUNTIME_DIR": str(tiny_tmpfs)})
        assert str(tiny_tmpfs / "cowcloop") in line
        assert list((tiny_tmpfs / "cowcloop").iterdir()) == []

    fails("No space", "XDG_RUNTIME_DIR")
    # Room for one file more after the other. There are three: this place, ours, the filler.
    for inodes in range(3, 8):
        options = f"remount,size=8m,nr_inodes={inodes}"
        run(program("mount", "mount"), "-o", options, tiny_tmpfs)
        # The last is the control channel, made when nbdkit has gone into the background.
        fails("No space")


def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    image = tmp_path / "i"
    image.write_bytes(cloop.build(PLAIN[: 4 * BLOCK], BLOCK))
    with serving(image, ":memory:", quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        handle.set_strict_mode(0)  # let libnbd send them
        size = 4 * BLOCK
        for call in (
            lambda: handle.pread(512, size),
            lambda: handle.pread(512, size - 1),
            lambda: handle.pwrite(b"x" * 512, size - 511),
            lambda: handle.pwrite(b"x", 1 << 62),
            lambda: handle.zero(1024, size - 1),
            lambda: handle.trim(1024, size - 1),
        ):
            assert _error(call) in ("EINVAL", "ENOSPC", "EIO")
        assert handle.pread(size, 0) == PLAIN[:size]
        handle.shutdown()


def test_detach_tells_of_writes_that_failed(tmp_path: Path, tiny_tmpfs: Path) -> None:
    """A client may have ended without a word of them."""
    image, cow = tmp_path / "i", tiny_tmpfs / "c"
    image.write_bytes(bytes(16 << 20))
    uri = attach(image, cow)
    handle = nbdclient.connect(uri)
    for at in range(0, 8 << 20, 1 << 20):
        with contextlib.suppress(nbdclient.module().Error):
            handle.pwrite(os.urandom(1 << 20), at)
    handle.shutdown()
    (device,) = listed()
    failures = device["cowfiles"][0]["failures"]
    assert failures > 0
    done = cowcloop("detach", uri)
    line = done.stderr.decode().splitlines()[0]
    assert f"warning: {uri}: {failures} writes or flushes failed" in line
    assert listed() == []


def test_a_server_that_cannot_be_started_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor, and no process: a program may try again for as long as it likes."""
    image = tmp_path / "i"
    image.write_bytes(PLAIN)
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "nbdkit").write_bytes(b"no program")
    (broken / "nbdkit").chmod(0o755)
    before = _descriptors()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(broken))
        for _ in range(3):
            with pytest.raises(cowcloop_package.ServerError, match="nbdkit: cannot be started: "):
                cowcloop_package.serve(image)
        patch.setattr("cowcloop.server.command.find_program", _missing)
        with pytest.raises(cowcloop_package.CowcloopError, match="is missing"):
            cowcloop_package.serve(image)
    assert _descriptors() == before

    def full(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", full)
        with pytest.raises(OSError, match="Too many open files"):
            cowcloop_package.serve(image)
    assert _descriptors() == before
    assert [pid for pid in children(os.getpid()) if _is_nbdkit(pid)] == []


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def _missing(name: str, _package: str) -> str:
    raise MissingProgram(f"{name} is missing")


def _is_nbdkit(pid: int) -> bool:
    return b"nbdkit" in Path(f"/proc/{pid}/cmdline").read_bytes()
