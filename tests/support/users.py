"""Programs run by a user without rights, whatever folder the project lies in."""

from __future__ import annotations

from pathlib import Path

from support.programs import ROOT, Argument, cowcloop_path, missing, program, run

NOBODY = 65534
#: The words of setpriv with which a root shell becomes the user.
BECOME = f"--reuid={NOBODY} --regid={NOBODY} --clear-groups"

# Over the folder that is closed to others lies an open one with nothing in it but the project,
# which is kept at /mnt meanwhile.
_OPEN = """
closed=$1 project=$2; shift 2
mount --bind "$project" /mnt
mount -t tmpfs -o mode=755 tmpfs "$closed"
mkdir -p "$project"
mount --bind /mnt "$project"
exec "$@"
"""


def _closed_to_others(path: Path) -> Path | None:
    """The outermost folder on the way that others may not pass."""
    for folder in reversed([path, *path.parents]):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def own_mounts() -> list[Argument]:
    """The words before a command that give it a mount namespace of its own."""
    words: list[Argument] = [program("unshare", "util-linux"), "--mount"]
    if run(*words, "true", expect=None).returncode:
        missing("no mount namespace can be had: it needs root, and a root that is a mount point")
    return words


def reachable(*command: Argument) -> list[Argument]:
    """A command that root runs, with the project where another user can reach it.

    It has a mount namespace of its own, in which even a project in /root is open.
    """
    words = own_mounts()
    closed = _closed_to_others(ROOT)
    if closed is not None and closed != ROOT:
        words += ["bash", "-euc", _OPEN, "bash", closed, ROOT]
    return [*words, *command]


def as_nobody(*command: Argument) -> list[Argument]:
    """The command as that user runs it."""
    setpriv = program("setpriv", "util-linux")
    return reachable(setpriv, *BECOME.split(), *command)


def require() -> None:
    """The test runs cowcloop as another user."""
    if run(*as_nobody(cowcloop_path(), "--version"), expect=None).returncode:
        missing(f"another user cannot run {cowcloop_path()}")
