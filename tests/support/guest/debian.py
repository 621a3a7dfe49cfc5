"""Whole Debians as roots, one with systemd and one with sysvinit: their file systems, made once.

Root is logged in on the console, as soon as the system has a prompt there, and the login shell
runs the scenario.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from support.guest.packages import SUITE, cache, call, fetch, mirror
from support.guest.system import becoming_root
from support.images import once
from support.programs import ROOT, program

INITS = ("systemd", "sysvinit")

_MAKE = Path(__file__).with_name("debian.sh")
_PACKAGES = ("systemd-sysv", "udev", "kmod", "login", "mount")
_SYSVINIT = ("sysvinit-core", "sysv-rc", "initscripts", "insserv", "startpar")
_SIZE = "400M"

_LOGIN = "agetty --autologin root --noclear --keep-baud 115200 - vt100"
_FILES = {
    "common/etc/hostname": "guest\n",
    "common/etc/fstab": "",
    # They leave out what only a first boot does.
    "common/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "systemd/etc/.updated": "",
    "systemd/var/.updated": "",
    "common/root/.profile": "exec /bin/sh /scenario </dev/null >/dev/ttyS1 2>&1\n",
    "systemd/etc/systemd/system/serial-getty@ttyS0.service.d/login.conf": (
        f"[Service]\nExecStart=\nExecStart=-/sbin/{_LOGIN}\n"
    ),
    "sysvinit/etc/inittab": (
        "id:2:initdefault:\n"
        "si::sysinit:/etc/init.d/rcS\n"
        "l0:0:wait:/etc/init.d/rc 0\n"
        "l2:2:wait:/etc/init.d/rc 2\n"
        "l6:6:wait:/etc/init.d/rc 6\n"
        f"T0:23:respawn:/sbin/{_LOGIN.replace(' - ', ' ttyS0 ')}\n"
    ),
}


def debian(init: str) -> Path:
    """An ext4 file system with a Debian and one of `INITS`, without a scenario."""
    script = _sysvinit_script()
    made_of = (SUITE, _PACKAGES, _SYSVINIT, _SIZE, _FILES, _MAKE.read_text(), script.read_text())
    name = f"debian-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}"
    return once(cache() / name, _make) / f"{init}.img"


def _sysvinit_script() -> Path:
    """What our package has for sysvinit."""
    return ROOT / "contrib/sysvinit/cowcloop-root"


def _make(folder: Path) -> None:
    as_root = becoming_root()
    call([*as_root, "rm", "-rf", "--one-file-system", folder])
    files = folder / "files"
    for name, text in _FILES.items():
        path = files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    place = files / "sysvinit/etc/init.d"
    place.mkdir()
    shutil.copy(_sysvinit_script(), place)
    debs = folder / "debs"
    debs.mkdir()
    for deb in fetch(SUITE, _SYSVINIT, alone=True):
        shutil.copy(deb, debs)
    words = [program("debootstrap", "debootstrap"), SUITE, mirror(), ",".join(_PACKAGES), _SIZE]
    call([*as_root, program("unshare", "util-linux"), "-m", "sh", _MAKE, folder, *words])
    shutil.rmtree(files)
    shutil.rmtree(debs)
