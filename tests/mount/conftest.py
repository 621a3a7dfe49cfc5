"""Fixtures of the tests that mount."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mounts import bytes_of, processes, require_fuse2fs_that_writes


@pytest.fixture(autouse=True)
def _fuse2fs(request: pytest.FixtureRequest) -> None:
    """A test of mounting by fuse2fs needs one that cowcloop writes with."""
    if "via" in request.fixturenames and request.getfixturevalue("via") == "fuse2fs":
        require_fuse2fs_that_writes()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory to mount on."""
    path = tmp_path / "mnt"
    path.mkdir()
    return path


@pytest.fixture
def left(runtime: Path, tmp_path: Path) -> Callable[[], list[str]]:
    """What is left of this test's devices: entries, mounts, loop devices and programs."""

    def look() -> list[str]:
        found = [str(path) for path in (runtime / "cowcloop").glob("*")]
        table = Path("/proc/self/mountinfo").read_text(errors="replace")
        found += [line for line in table.splitlines() if str(runtime) in line]
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            if os.fsencode(runtime) in bytes_of(path):
                found.append(str(path))
        for name in ("nbdkit", "cowcloopd", "fuse2fs"):
            found += [f"{name} {pid}" for pid in processes(name, runtime, tmp_path)]
        return found

    return look
