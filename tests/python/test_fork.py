"""A fork: the open disks stay the parent's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cowcloop
import pytest
from support import cloop
from support.programs import PATIENCE

SIZE = 40 * 4096
PLAIN = cloop.sample(SIZE, 4096)

_PARENT = """
import os, signal, sys
import cowcloop
disk = cowcloop.open(sys.argv[1], sys.argv[2])
disk.pwrite(b"before", 0)
if (child := os.fork()) == 0:
    sys.exit(0)  # as a child of multiprocessing ends, with all that Python does then
os.waitpid(child, 0)
disk.pwrite(b"after", 64 << 10)
disk.flush()
if sys.argv[3] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
disk.close()
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, 4096))
    return path


@pytest.mark.parametrize("end", ["killed", "closed"])
def test_a_child_that_ends_writes_nothing(image: Path, tmp_path: Path, end: str) -> None:
    cow = tmp_path / "c"
    words = [sys.executable, "-c", _PARENT, str(image), str(cow), end]
    done = subprocess.run(words, capture_output=True, timeout=PATIENCE)
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    assert done.stderr == b""
    with cowcloop.open(image, cow, read_only=True) as disk:
        assert disk.pread(6, 0) == b"before"
        assert disk.pread(5, 64 << 10) == b"after"


def _in_child(work: Callable[[], None]) -> None:
    """Runs it in a forked process, which must end well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_cannot_use_them_and_may_open_its_own(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with cowcloop.open(image, tmp_path / "c") as disk:
        disk.pwrite(b"ours", 0)

        def child() -> None:
            for use in (lambda: disk.pread(4, 0), lambda: disk.pwrite(b"x", 0), disk.flush):
                with pytest.raises(ValueError, match="fork"):
                    use()
            disk.close()
            with cowcloop.open(image, other) as own:
                own.pwrite(b"own", 0)

        _in_child(child)
        assert disk.pread(4, 0) == b"ours"
    with cowcloop.open(image, other) as disk:
        assert disk.pread(3, 0) == b"own"


def test_a_child_does_not_keep_the_cowfile_in_use(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    disk = cowcloop.open(image, cow)
    (ready, tell), (stay, leave) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(leave)
        os.write(tell, b"!")
        os.read(stay, 1)
        os._exit(0)
    os.close(stay)
    assert os.read(ready, 1) == b"!"
    disk.close()
    cowcloop.open(image, cow).close()
    os.close(leave)
    os.waitpid(child, 0)
    os.close(ready)
    os.close(tell)
