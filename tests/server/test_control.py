"""What a served device is asked to do: to be read-only, to let its medium be changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import cloop, cowfile, nbdclient
from support.programs import cowcloop, cowcloop_path, refused, run
from support.server import serving

BLOCK = 4096
PLAIN = cloop.sample(64 * BLOCK, BLOCK)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK))
    return path


def test_reopen_read_only(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    with serving(image, cow, quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"kept", 0)
        assert cowfile.original_refuses(cow, PLAIN) is not None
        cowcloop("reopen", "--read-only", server.uri)
        assert cowfile.original_refuses(cow, PLAIN) is None
        with pytest.raises(nbdclient.module().Error):
            handle.pwrite(b"lost", 0)
        assert handle.pread(4, 0) == b"kept"
        handle.shutdown()


def test_suspend_and_resume_with_the_medium_changed(image: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    with serving(image, tmp_path / "c", "--cache", "64K", quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        assert handle.pread(4, 0) == PLAIN[:4]
        cowcloop("suspend", server.uri)
        assert b"  clean, suspended  " in cowcloop("list").stdout
        image.unlink()
        refused("resume", server.uri, says="i.img")
        image.write_bytes(cloop.build(b"\x55" * len(PLAIN), BLOCK))
        refused("resume", server.uri, says="i.img")
        image.write_bytes(data)
        cowcloop("resume", server.uri)
        assert b"suspended" not in cowcloop("list").stdout
        assert nbdclient.read_all(handle) == PLAIN
        handle.shutdown()


def test_print_command(image: Path, tmp_path: Path) -> None:
    done = cowcloop(
        "serve", "--print-command", image, tmp_path / "my c", "--", "--exit-with-parent"
    )
    (line,) = done.stdout.decode().splitlines()
    assert "nbdkit" in line.split()[0]
    assert f"image={image}" in line
    assert f"'cow={tmp_path / 'my c'}'" in line
    assert line.endswith(" --exit-with-parent")
    assert not (tmp_path / "my c").exists()


def test_threads_are_left_over_where_requests_wait_for_a_suspended_image(image: Path) -> None:
    """All of a kernel's wait: a file system must not see an I/O error because many do."""
    command = (cowcloop_path(), "serve", "--print-command", image)
    writing = (*command, image.with_name("c"))
    line = run(*writing, "--device", "/dev/nbd7").stdout.decode()
    assert " -t 136 " in line
    assert " waiting=128" in line
    alone = ("taskset", "--cpu-list", str(min(os.sched_getaffinity(0))))
    line = run(*alone, *writing).stdout.decode()
    assert " -t 4 " in line
    assert " waiting=3" in line
    # What only reads has nothing to flush.
    assert " waiting=" not in run(*alone, *command).stdout.decode()
