#!/usr/bin/env python3
"""Example 2 of the cowloop page: write to a compressed filesystem that lies on a CD.

Prints each command that it runs, so that a reader learns the tool from it. Everything happens in
a directory of its own, which is gone afterwards, also when something fails.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

COWCLOOP = Path(sys.executable).with_name("cowcloop")
# For steps that only root may do. A user's FUSE mount is closed to root, so nbdfuse is one.
AS_ROOT = [] if os.geteuid() == 0 else ["sudo"]
PATIENCE = 30.0
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


class DemoError(Exception):
    """A step that failed."""


def say(text: str) -> None:
    print(f"\n# {text}", flush=True)


def show(command: list[str]) -> None:
    print(f"{BOLD}$ {shlex.join(command)}{PLAIN}", flush=True)


def attempt(*command: str) -> bool:
    """Print a command and run it; whether it succeeded."""
    show(list(command))
    words = [str(COWCLOOP) if word == "cowcloop" else word for word in command]
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        raise DemoError(
            f"{words[0]} is not installed: scripts/install-deps.sh demo installs it"
        ) from None


def run(*command: str) -> None:
    """The same, and it must succeed."""
    if not attempt(*command):
        raise DemoError(f"this failed: {shlex.join(command)}")


def output(*command: str) -> str:
    """The output of a command, which is also shown."""
    show(list(command))
    words = [str(COWCLOOP) if word == "cowcloop" else word for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        raise DemoError(f"this failed: {shlex.join(command)}")
    return done.stdout.strip()


def is_mounted(folder: str) -> bool:
    """Whether something is mounted there. os.path.ismount() may not look at root's FUSE mounts,
    and does not know a bind mount."""
    place = os.path.join(os.getcwd(), folder)
    with open("/proc/self/mountinfo") as mounts:
        return any(line.split()[4] == place for line in mounts)


def unmount(folder: str) -> None:
    """Unmount, and wait a moment for a kernel that is still closing files."""
    show([*AS_ROOT, "umount", folder])
    end = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run([*AS_ROOT, "umount", folder], stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return
        if time.monotonic() > end:
            raise DemoError(done.stderr.strip())
        time.sleep(0.2)


@contextlib.contextmanager
def by_hand() -> Iterator[None]:
    """One step after the other: serve, show the device as a file (FUSE), mount the file system."""
    uri = output("cowcloop", "attach", "cdrom/chicken", "chicken.cow")
    command = [*AS_ROOT, "nbdfuse", "nbd/chicken", uri]
    print(f"{BOLD}$ {shlex.join(command)} &{PLAIN}", flush=True)
    nbdfuse = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while not is_mounted("nbd"):
            if nbdfuse.poll() is not None or time.monotonic() > end:
                raise DemoError("nbdfuse did not make the device visible: is there a /dev/fuse?")
            time.sleep(0.05)
        run(*AS_ROOT, "mount", "-t", "ext2", "-o", "loop,noatime", "nbd/chicken", "mnt")
        yield
        unmount("mnt")
        # The device as the kernel left it, before another program opens it.
        run(*AS_ROOT, "e2fsck", "-fn", "nbd/chicken")
        unmount("nbd")
        nbdfuse.wait(PATIENCE)
        run("cowcloop", "list")
    finally:
        for folder in ("mnt", "nbd"):
            if is_mounted(folder):
                subprocess.run([*AS_ROOT, "umount", "--lazy", folder])
        if nbdfuse.poll() is None:
            # sudo's process is root's too.
            subprocess.run([*AS_ROOT, "kill", str(nbdfuse.pid)])
            nbdfuse.wait()
        run("cowcloop", "detach", uri)


@contextlib.contextmanager
def mounted() -> Iterator[None]:
    """The same in one command."""
    run(*AS_ROOT, "cowcloop", "mount", "cdrom/chicken", "chicken.cow", "mnt")
    try:
        yield
        run(*AS_ROOT, "cowcloop", "list")
    finally:
        run(*AS_ROOT, "cowcloop", "umount", "mnt")


@contextlib.contextmanager
def medium() -> Iterator[None]:
    """The directory cdrom/ with the image on a read-only medium."""
    say("The image goes on a CD")
    run("genisoimage", "-quiet", "-R", "-o", "chicken.iso", "cd")
    iso = attempt(*AS_ROOT, "mount", "-t", "iso9660", "-o", "loop,ro", "chicken.iso", "cdrom")
    if not iso:
        say("This kernel cannot mount ISO 9660: a read-only directory stands in for the CD")
        run(*AS_ROOT, "mount", "--bind", "cd", "cdrom")
    try:
        if not iso:
            run(*AS_ROOT, "mount", "-o", "remount,bind,ro", "cdrom")
        yield
    finally:
        unmount("cdrom")


def example(work: Path) -> None:
    """The walk through, with the current directory in `work`."""
    for name in ("files", "cd", "cdrom", "nbd", "mnt"):
        (work / name).mkdir()
    for number in range(200):
        (work / "files" / f"egg-{number}").write_text(f"This is egg {number}.\n" * 500)
    new = next(
        path for path in ("/etc/termcap", "/etc/services", "/etc/passwd") if Path(path).exists()
    )

    say("A small ext2 filesystem, compressed")
    run("mke2fs", "-q", "-t", "ext2", "-d", "files", "chicken.ext2", "16M")
    run("cowcloop", "create", "chicken.ext2", "cd/chicken")
    run("cowcloop", "info", "cd/chicken")
    before = output("sha256sum", "cd/chicken").split()[0]
    with medium():
        say("Served with a cowfile, mounted read-write, and a file copied in")
        with by_hand():
            run(*AS_ROOT, "cp", new, "mnt/")
            run(*AS_ROOT, "rm", "mnt/egg-13")
            run("df", "-h", "mnt")
        say("What was written is in the cowfile; it takes the space of the changes alone")
        run("cowcloop", "info", "chicken.cow")
        run("ls", "-lsh", "chicken.cow", "cdrom/chicken")
        say("The next day: mounted again, now in one command, and the file is there")
        with mounted():
            run("cmp", new, f"mnt/{Path(new).name}")
            run("ls", "-l", f"mnt/{Path(new).name}")
            if Path("mnt/egg-13").exists():
                raise DemoError("mnt/egg-13 is back")
        say("Image and changes as one plain file: sound, and with the file in it")
        run("cowcloop", "extract", "cdrom/chicken", "chicken.cow", "whole.ext2")
        run("e2fsck", "-fn", "whole.ext2")
        say("And the image has not changed")
        after = output("sha256sum", "cdrom/chicken").split()[0]
        if after != before:
            raise DemoError("cdrom/chicken has changed")


def main() -> int:
    work = Path(tempfile.mkdtemp(prefix="cowcloop-demo-", dir="/tmp"))
    here = Path.cwd()
    # For mke2fs and the like, which are not on a user's PATH on Debian.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    print(f"{BOLD}$ cd {work}{PLAIN}")
    os.chdir(work)
    try:
        example(work)
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        print(f"cowcloop: demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        os.chdir(here)
        shutil.rmtree(work, ignore_errors=True)
    say("Done: the base unchanged, the changes kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
