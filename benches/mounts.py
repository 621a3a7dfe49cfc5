"""The image's file system, mounted in the ways that a user has to choose from.

Each way begins with nothing of the file system or of the device in the page cache; the file that
holds the image is there.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cowcloop
from cowcloop import mounts

from benches.model import UnavailableError
from benches.programs import COWCLOOP, program, run

_LOOP = Path("/dev/loop-control")
FUSE = Path("/dev/fuse")
_START_SECONDS = 30
_END_SECONDS = 30


@dataclass(frozen=True)
class Place:
    """A mounted file system."""

    tree: Path
    # The block device that it is on.
    device: str


@contextmanager
def ours(image: Path | str, *cows: Path, options: Sequence[str | Path] = ()) -> Iterator[Place]:
    """By cowcloop, with FUSE and a loop device even where the kernel has ublk."""
    _check(FUSE)
    with _folder() as folder:
        run([COWCLOOP, "mount", "-q", "--via", "fuse", *options, image, *cows, folder])
        try:
            yield _place(folder)
        finally:
            run([COWCLOOP, "umount", "-q", folder])


@contextmanager
def plain(image: Path, *, read_only: bool = True) -> Iterator[Place]:
    """The image that is not compressed, or a file that looks like it, on a loop device."""
    access = "ro" if read_only else "rw"
    with _mounted("ext2", image, f"noatime,{access}") as folder:
        yield _place(folder)


@contextmanager
def held(kind: str, holder: Path, name: str) -> Iterator[Path]:
    """The file of this name in a squashfs or an EROFS, with nothing of it in the page cache."""
    with _mounted(kind, holder, "ro") as folder:
        path = folder / name
        # A mount of the same file elsewhere shares its page cache with this one.
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield path


@contextmanager
def inside(kind: str, holder: Path, name: str) -> Iterator[Place]:
    """From the image as a file in a squashfs or an EROFS, which compress files."""
    with held(kind, holder, name) as file, plain(file) as place:
        yield place


@contextmanager
def by_nbdfuse(image: Path, *cows: Path) -> Iterator[Place]:
    """From nbdkit's socket, which nbdfuse shows as a file."""
    _check(FUSE)
    program("nbdfuse")
    with ExitStack() as stack:
        server = stack.enter_context(cowcloop.serve(image, *cows))
        file = stack.enter_context(nbdfuse(server.uri))
        yield stack.enter_context(plain(file, read_only=not cows))


@contextmanager
def nbdfuse(uri: str) -> Iterator[Path]:
    """What an NBD server has, as a file."""
    with by_fuse(lambda folder: ["nbdfuse", folder / "disk", uri]) as folder:
        yield folder / "disk"


@contextmanager
def by_fuse(command: Callable[[Path], Sequence[str | Path]]) -> Iterator[Path]:
    """The directory on which a program, given it, mounts something until that is unmounted."""
    _check(FUSE)
    with _folder() as folder, tempfile.TemporaryFile("w+") as said:
        name, *words = command(folder)
        started = [program(str(name)), *words]
        process = subprocess.Popen(started, stdout=said, stderr=said)
        try:
            _wait(str(name), folder, process, said)
            yield folder
        finally:
            _end(process, folder)


@contextmanager
def made_by(mounted: AbstractContextManager[Place], file: Path) -> Iterator[Place]:
    """A mount that makes ``file``, which is gone afterwards."""
    try:
        with mounted as place:
            yield place
    finally:
        file.unlink(missing_ok=True)


def _check(*more: Path) -> None:
    if os.geteuid() != 0:
        raise UnavailableError("only root can mount from a loop device")
    for path in (_LOOP, *more):
        if not path.exists():
            raise UnavailableError(f"{path} does not exist")


@contextmanager
def _mounted(kind: str, file: Path, options: str) -> Iterator[Path]:
    """The directory on which a file is mounted from a loop device."""
    _check()
    with _folder() as folder:
        try:
            run(["mount", "-t", kind, "-o", f"loop,{options}", file, folder])
        except RuntimeError as error:
            # The directory has another name each time; the reason stays the same.
            said = str(error).replace(str(folder), "DIRECTORY")
            raise UnavailableError(said) from None
        try:
            yield folder
        finally:
            run(["umount", folder])


@contextmanager
def _folder() -> Iterator[Path]:
    folder = tempfile.mkdtemp(prefix="cowcloop-bench-")
    try:
        yield Path(folder)
    finally:
        os.rmdir(folder)


def _place(folder: Path) -> Place:
    found = mounts.at(str(folder))
    if found is None:
        raise RuntimeError(f"nothing is mounted on {folder}")
    return Place(folder, found.source)


def _wait(name: str, folder: Path, process: subprocess.Popen[bytes], said: IO[str]) -> None:
    until = time.monotonic() + _START_SECONDS
    while mounts.at(str(folder)) is None:
        if process.poll() is not None:
            said.seek(0)
            lines = " / ".join(said.read().strip().splitlines()[-3:])
            raise RuntimeError(f"{name}: exit code {process.returncode}: {lines}")
        if time.monotonic() > until:
            raise RuntimeError(f"{name} mounted nothing in {_START_SECONDS} s")
        time.sleep(0.005)


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Unmount it, which ends the program; by force where that fails: neither stays behind."""
    try:
        run(["umount", folder])
        process.wait(_END_SECONDS)
    except (RuntimeError, subprocess.TimeoutExpired):
        process.kill()
        subprocess.run(["umount", "--lazy", folder], capture_output=True, check=False)
        process.wait(_END_SECONDS)
