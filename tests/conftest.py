"""Fixtures that every test shares."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cloop, images, programs, server


def pytest_report_header() -> str | None:
    """What stands in for a program that newer distributions lack."""
    if programs.find("create_compressed_fs"):
        return None
    return "no cloop-utils here: images by the tests' own encoder, other readers are qemu alone"


@pytest.fixture(scope="session", autouse=True)
def _quiet_environment() -> Iterator[None]:
    """Neither the user's settings nor a running device of theirs touches a test."""
    patch = pytest.MonkeyPatch()
    for name in ("COWCLOOP_CACHE", "PYTHONWARNINGS", "PYTHONUNBUFFERED", "LISTEN_FDS", "NBDKIT"):
        patch.delenv(name, raising=False)
    patch.setenv("NO_COLOR", "1")
    patch.setenv("COLUMNS", "100")
    # A shell starts what it puts into the background deaf to Ctrl-C and Ctrl-\, and nohup to
    # SIGHUP. Tests send all three: what a process with a handler starts hears them again.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own; whatever is still served there is detached."""
    # Socket paths are limited to 107 bytes: pytest's own directories are too deep.
    folder = Path(tempfile.mkdtemp(prefix="cct-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    server.Server.kill_all()
    if any((folder / "cowcloop").glob("*")):
        for device in server.listed():
            if device["mount"] is not None:
                programs.cowcloop("umount", device["mount"], expect=None)
        programs.cowcloop("detach", "--all", expect=None)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"


@pytest.fixture(scope="session")
def ext2(shared: Path) -> Path:
    """A small ext2 filesystem; read-only."""
    return images.once(shared / "disk.ext2", images.make_ext2)


@pytest.fixture(scope="session")
def chicken(shared: Path, ext2: Path) -> Path:
    """The same, as a cloop image with 64 KiB blocks; read-only."""
    return images.once(shared / "chicken.img", lambda part: images.make_chicken(ext2, part))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """``cloop.PLAIN`` in blocks of 4 KiB; some modules have an ``image`` of their own."""
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(cloop.PLAIN, 4096))
    return path


@pytest.fixture
def root() -> None:
    """The test needs to be root."""
    if os.geteuid() != 0:
        programs.missing("must be root")


@pytest.fixture
def loop(root: None) -> None:
    """The test mounts through a loop device."""
    if not Path("/dev/loop-control").exists():
        programs.missing("the kernel has no loop devices")


@pytest.fixture
def fuse() -> None:
    """The test mounts through FUSE."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        programs.missing("/dev/fuse cannot be opened")
    programs.program("fusermount3", "fuse3")
    if os.geteuid() != 0 and not Path("/etc/mtab").exists():
        programs.missing("there is no /etc/mtab: fusermount3 unmounts nothing without it")


@pytest.fixture
def sends_again() -> None:
    """The kernel can be asked for what a dead FUSE server has not answered."""
    release = os.uname().release.split("-")[0].split(".")
    if tuple(map(int, release[:2])) < (6, 9):
        pytest.skip("the kernel is older than Linux 6.9")


@pytest.fixture
def tiny_tmpfs(root: None, tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 4 MiB that fills up."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = programs.program("mount", "mount")
    if programs.run(mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder, expect=None).returncode:
        programs.missing("a tmpfs cannot be mounted")
    yield folder
    server.wait_until(lambda: programs.run("umount", folder, expect=None).returncode == 0, "umount")
