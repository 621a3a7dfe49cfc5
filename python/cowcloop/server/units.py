"""systemd: the programs of a device in the background get units of their own.

A process that a login session started ends with the session, or, at a reboot, before the file
systems are unmounted. So each program of a device runs in a scope of its own. A service, the
keeper, has no process: when the system goes down, it runs `cowcloop.shutdown`, which unmounts
and ends the device in the right order (`_order` says where that stands among all the others).
What a keeper cannot end, because something uses it, goes on until systemd's last kill, which
comes after all unmounts. Without systemd none of this happens.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from cowcloop import mounts, registry
from cowcloop.files import MEMORY

_BOOTED = Path("/run/systemd/system")

# What only an initramfs has: dracut's and mkosi's, and initramfs-tools'.
_INITRAMFS = ("/etc/initrd-release", "/conf/initramfs.conf")

# Time to write everything, however slow the medium.
_PATIENCE = "TimeoutStopSec=5min"

# Not all of Python is loaded for an entry that is gone, as it is when a device was detached.
_STOP = 'test ! -e "$0/lock" || exec "$1" -m cowcloop.shutdown "$0"'


def own_scope(entry: str, program: str) -> list[str]:
    """The words that run a command in a scope of its own; none without systemd.

    The command keeps its process number, and the descriptors that it inherits.
    """
    if not _usable():
        return []
    about = f"--description=cowcloop: {program} of device {entry}"
    command = [*_run(), "--scope", f"--unit={_scope(entry, program)}", about, "-p", _PATIENCE]
    if os.geteuid() == 0:
        command += ["-p", "DefaultDependencies=no"]
    return [*command, "--"]


def argv0(path: str) -> str:
    """The name to run a program of a device under.

    The file system that the programs of an initramfs serve may become the root: systemd does
    not kill a process that was started there and whose name begins with this letter.
    """
    name = os.path.basename(path)
    return f"@{name}" if any(map(os.path.exists, _INITRAMFS)) else path


def keep(entry: registry.Entry) -> None:
    """Have a device that is ready ended in the right order when the system goes down."""
    if entry.record is None or not _usable():
        return
    stop = ["/bin/sh", "-c", _STOP, str(entry.path), sys.executable]
    properties = [
        "Type=oneshot",
        "RemainAfterExit=yes",
        _PATIENCE,
        f"BindsTo={_scope(entry.id, entry.record.program)}",
        f"ExecStop={' '.join(map(_quoted, stop))}",
        *_order(entry, entry.record),
    ]
    about = f"--description=cowcloop: end of device {entry.id}"
    command = [*_run(), f"--unit=cowcloop-{entry.id}.service", about]
    for each in properties:
        command += ["-p", each]
    # If that fails, the device is no worse off than without systemd.
    subprocess.run([*command, "--", "/bin/true"], **_SILENT)  # type: ignore[call-overload]


def _order(entry: registry.Entry, record: registry.Record) -> Iterable[str]:
    """Where the keeper stands. What starts after another unit is stopped before it."""
    scopes = [_scope(entry.id, program) for program in (record.program, "fuse2fs")]
    yield f"After={' '.join(scopes)}"
    if os.geteuid() != 0:
        # A user's systemd unmounts nothing, and goes down after the user's sessions.
        return
    yield "DefaultDependencies=no"
    yield "Conflicts=shutdown.target"
    # Sessions end first: a process in one may keep a file system busy.
    yield "Before=shutdown.target systemd-user-sessions.service"
    places = [record.image, *record.cowfiles, *([record.sessions] if record.sessions else [])]
    below = {mounts.holding(os.path.realpath(path)) for path in places if path != MEMORY}
    units = [_unit(point, "mount") for point in sorted(below - {"/"})]
    if units:
        yield f"After={' '.join(units)}"
    above = [record.mount] if record.mount else []
    above += [mount.point for mount in mounts.mounts() if entry.path in Path(mount.point).parents]
    if above:
        yield f"Before={' '.join(_unit(point, 'mount') for point in above)}"
    if record.device is not None:
        name = os.path.basename(os.path.realpath(record.device))
        parts = Path("/sys/class/block", name).glob(f"{name}p*")
        devices = [name, *(path.name for path in parts)]
        targets = " ".join(f"blockdev@{_escaped(f'/dev/{each}')}.target" for each in devices)
        # systemd orders each mount after the target of its device, if that is there.
        yield f"Before={targets}"
        yield f"Wants={targets}"


_SILENT = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "check": False,
}

_checked: dict[str, bool] = {}


def _usable() -> bool:
    """Whether a systemd runs here that makes units for this user."""
    if not _BOOTED.is_dir() or shutil.which("systemd-run") is None:
        return False
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() != 0 and not os.path.exists(f"{folder}/systemd/private"):
        return False
    if folder not in _checked:
        trial = subprocess.run([*_run(), "--scope", "--", "true"], **_SILENT)  # type: ignore[call-overload]
        _checked[folder] = trial.returncode == 0
    return _checked[folder]


def is_stopping() -> bool:
    """Whether the systemd that has this user's units is going down."""
    user = [] if os.geteuid() == 0 else ["--user"]
    done = subprocess.run(
        ["systemctl", *user, "is-system-running"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() == "stopping"


def _run() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user"]
    return ["systemd-run", *user, "--quiet", "--collect"]


def _scope(entry: str, program: str) -> str:
    return f"cowcloop-{entry}-{program}.scope"


def _unit(path: str, kind: str) -> str:
    return f"{_escaped(path)}.{kind}"


def _escaped(path: str) -> str:
    """A path as systemd writes it in the name of a unit."""
    words = os.fsencode(path.strip("/"))
    if not words:
        return "-"
    letters = []
    for place, byte in enumerate(words):
        letter = chr(byte)
        if letter == "/":
            letters.append("-")
        elif letter.isascii() and (letter.isalnum() or letter in ":_" or (letter == "." and place)):
            letters.append(letter)
        else:
            letters.append(f"\\x{byte:02x}")
    return "".join(letters)


def _quoted(word: str) -> str:
    """A word of a command in a unit."""
    text = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
