"""A disk that fails when it is told to, with a real file system on it.

A file, served by nbdkit with its error filter, shown as a file by nbdfuse, made a block
device by loop, formatted and mounted. A copy of the first file is what a power cut at
that moment leaves on the medium.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.programs import missing, program, run
from support.server import Server, wait_until

#: The smallest disk that mkfs.xfs takes is 300 MB. Nothing of it is written but metadata.
SIZE = 320 << 20
MKFS = {
    "ext4": ("e2fsprogs", ["-q", "-F", "-O", "^metadata_csum_seed"]),
    "xfs": ("xfsprogs", ["-q", "-f"]),
    "btrfs": ("btrfs-progs", ["-q", "-f"]),
}


class GaveUpError(Exception):
    """The file system writes nothing any more: its own metadata met the disk that failed."""


class FailingDisk:
    """What is mounted on ``folder`` lies on a disk whose writes can be made to fail."""

    def __init__(self, kind: str, medium: Path, server: int, switch: Path, folder: Path) -> None:
        self.kind = kind
        self.server = server
        self.medium = medium
        self.switch = switch
        self.folder = folder

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """While this lasts, the disk fails each write."""
        self.switch.touch()
        try:
            yield
        finally:
            self.switch.unlink()

    def require_writable(self) -> None:
        """Raises ``GaveUpError`` where the file system has made itself read-only."""
        if os.statvfs(self.folder).f_flag & os.ST_RDONLY:
            raise GaveUpError(self.kind)

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """While this lasts, nothing is written to the medium: file systems do so by themselves."""

        def stopped() -> bool:
            tasks = Path(f"/proc/{self.server}/task").glob("*/stat")
            return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

        os.kill(self.server, signal.SIGSTOP)
        try:
            wait_until(stopped, "nbdkit to stop", 30)
            yield
        finally:
            os.kill(self.server, signal.SIGCONT)

    def after_a_cut(self, name: str, to: Path) -> Path:
        """A copy of the file as it is found when the power is cut now."""
        copy, mounted = to / "cut.disk", to / "cut"
        with self._still():
            run("cp", "--sparse=always", self.medium, copy)
        mounted.mkdir(exist_ok=True)
        device = attach_loop(copy)
        try:
            # The UUID is that of the file system which is mounted already.
            options = "nouuid" if self.kind == "xfs" else "defaults"
            run("mount", "-t", self.kind, "-o", options, device, mounted)
            try:
                found = to / name
                shutil.copyfile(mounted / name, found)
            finally:
                unmount(mounted)
        finally:
            detach_loop(device)
        return found


def attach_loop(file: Path) -> str:
    losetup = program("losetup", "mount")
    return run(losetup, "--find", "--show", file).stdout.decode().strip()


def detach_loop(device: str) -> None:
    wait_until(lambda: run("losetup", "-d", device, expect=None).returncode == 0, "losetup", 30)


def unmount(folder: Path) -> None:
    wait_until(lambda: run("umount", folder, expect=None).returncode == 0, "umount", 30)


@contextlib.contextmanager
def failing_disk(kind: str, tmp_path: Path) -> Iterator[FailingDisk]:
    """A disk with a file system of this kind, mounted."""
    package, options = MKFS[kind]
    mkfs = program(f"mkfs.{kind}", package)
    nbdkit, nbdfuse = program("nbdkit", "nbdkit"), program("nbdfuse", "libnbd-bin")
    medium, switch, folder = tmp_path / "medium", tmp_path / "fail", tmp_path / "disk"
    shown, socket = tmp_path / "shown", tmp_path / "nbd.sock"
    medium.touch()
    os.truncate(medium, SIZE)
    shown.touch()
    folder.mkdir()
    errors = ["error=EIO", "error-pwrite-rate=100%", f"error-file={switch}"]
    with contextlib.ExitStack() as stack:
        serve = ["--filter=error", "file", str(medium), *errors]
        # It is written when nbdkit listens; the socket is there before that.
        ready = tmp_path / "nbdkit.pid"
        server = subprocess.Popen([nbdkit, "-f", "-P", str(ready), "-U", str(socket), *serve])
        stack.callback(server.wait)
        stack.callback(server.kill)
        wait_until(ready.exists, "nbdkit", 30)
        bridge = subprocess.Popen([nbdfuse, str(shown), "--unix", str(socket)])
        stack.callback(bridge.wait)
        stack.callback(lambda: run("fusermount3", "-u", "-z", shown, expect=None))
        wait_until(lambda: shown.stat().st_size == SIZE, "nbdfuse", 30)
        device = attach_loop(shown)
        stack.callback(detach_loop, device)
        run(mkfs, *options, device)
        # Metadata that the file system writes by itself, every so many seconds, would meet a
        # disk that fails, after which it writes nothing any more.
        seldom = ["-o", "commit=600"] if kind != "xfs" else []
        if run("mount", "-t", kind, *seldom, device, folder, expect=None).returncode != 0:
            missing(f"the kernel cannot mount {kind}")
        stack.callback(unmount, folder)
        # A test that fails leaves servers, which keep the file system busy.
        stack.callback(Server.kill_all)
        yield FailingDisk(kind, medium, server.pid, switch, folder)
