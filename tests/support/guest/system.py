"""A Debian with systemd for the guest: its disk, made once, and the payload of each test."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cowcloop
from cowcloop.server.command import plugin_path

from support.guest.initramfs import Initramfs
from support.guest.kernel import kernel
from support.guest.machine import MEMORY_MIB, Drive, Machine, boot
from support.guest.packages import SUITE, cache, call, fetch, mirror, unpack
from support.images import once
from support.programs import missing, program

_PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "kmod", "dbus", "dbus-user-session", "libpam-systemd"),
    *("mount", "fuse3", "e2fsprogs", "dosfstools", "libnbd-bin", "nbd-client", "nbdkit", "python3"),
    "genisoimage",
)
_SIZE = "900M"

# What the command line imports, all of it Python alone.
_MODULES = (
    *("click", "rich_click", "rich", "markdown_it", "mdurl", "pygments", "pycdlib"),
    "typing_extensions",
)

# The last fuse2fs of Debian's that cuts files which are opened to be written anew.
_FUSE2FS_SUITE = "bookworm"
_FUSE2FS = ("fuse2fs", "libext2fs2", "libfuse2", "libcom-err2")

_SCENARIO = """\
[Unit]
Description=Scenario of the test
After=multi-user.target

[Service]
ExecStart=/usr/bin/python3 /payload/scenario.py
StandardOutput=tty
TTYPath=/dev/ttyS1
StandardError=inherit

[Install]
WantedBy=multi-user.target
"""

_SETTINGS = {
    # The initramfs has mounted all that there is.
    "etc/fstab": "",
    "etc/hostname": "guest\n",
    "etc/systemd/system/scenario.service": _SCENARIO,
    # The strictest that an administrator can choose: what a session leaves behind is ended.
    "etc/systemd/logind.conf.d/test.conf": "[Login]\nKillUserProcesses=yes\n",
    # Nothing has to wait for entropy, a terminal or the network.
    "etc/systemd/system.conf.d/test.conf": "[Manager]\nDefaultTimeoutStopSec=60s\n",
    "etc/modules-load.d/test.conf": "nbd\nfuse\nloop\n",
    "usr/lib/python3/dist-packages/payload.pth": "/payload/python\n",
    "usr/bin/cowcloop": (
        "#!/usr/bin/python3\nfrom cowcloop.cli import main\nraise SystemExit(main())\n"
    ),
    "usr/local/bin/fuse2fs": (
        "#!/bin/sh\nexport LD_LIBRARY_PATH=/payload/fuse2fs/lib/x86_64-linux-gnu\n"
        'exec /payload/fuse2fs/usr/bin/fuse2fs "$@"\n'
    ),
}
_MASKED = (
    *("getty@tty1.service", "serial-getty@ttyS0.service", "systemd-timesyncd.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "systemd-networkd.service"),
    *("systemd-udev-settle.service", "ldconfig.service", "systemd-journal-flush.service"),
    *("systemd-journal-catalog-update.service", "systemd-update-done.service"),
    *("systemd-update-utmp.service", "systemd-random-seed.service", "systemd-pcrphase.service"),
)

_SWITCH = """
mount -t ext4 /dev/vda /root
mount -t ext4 /dev/vdb /root/payload
mount -t ext4 /dev/vdc /root/data
mount --move /dev /root/dev
exec switch_root /root {init}
"""

# Without systemd the scenario itself is all that there is, which saves a minute.
_ALONE = """\
export PATH=/usr/local/bin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
modprobe -a nbd fuse loop
python3 /payload/scenario.py >/dev/ttyS1
sync
systemctl poweroff -ff
"""


class Payload:
    """The second disk, mounted on /payload: the cowcloop under test, and files of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        python = folder / "python"
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
        source = Path(cowcloop.__file__).parent
        shutil.copytree(source, python / "cowcloop", ignore=ignore)
        shutil.copy(plugin_path(), folder / "nbdkit-cowcloop-plugin.so")
        for name in _MODULES:
            found = importlib.util.find_spec(name)
            assert found is not None
            place = Path(found.origin or "")
            if place.name == "__init__.py":
                shutil.copytree(place.parent, python / name, ignore=ignore)
            else:
                shutil.copy(place, python)
        unpack(fetch(_FUSE2FS_SUITE, _FUSE2FS, alone=True), folder / "fuse2fs")

    def run(
        self,
        scenario: str,
        data: Path,
        *,
        timeout: float,
        systemd: bool = True,
        memory: int = MEMORY_MIB,
    ) -> Machine:
        """Boot the system, which runs a Python script, until it switches itself off or reboots.

        `data` is an ext4 disk, mounted on /data, that keeps what is written to it.
        """
        (self.folder / "scenario.py").write_text(scenario)
        for name in ("inside.py", "inside_nbd.py"):
            shutil.copy(Path(__file__).with_name(name), self.folder)
        (self.folder / "init").write_text(_ALONE)
        disk = self.folder.with_name("payload.img")
        _make_ext4(self.folder, disk, "128M")
        script = _SWITCH.format(init="/sbin/init" if systemd else "/bin/sh /payload/init")
        archive = Initramfs().save(self.folder.with_name("initramfs"), script, ("virtio_blk",))
        drives = (Drive(system_image()), Drive(disk), Drive(data, scratch=False))
        return boot(archive, drives=drives, timeout=timeout, memory=memory)


def system_image() -> Path:
    """The disk of a Debian with systemd and what cowcloop needs, but without cowcloop."""
    made_of = repr((SUITE, _PACKAGES, _SIZE, _SETTINGS, _MASKED)).encode()
    return once(cache() / f"system-{hashlib.sha256(made_of).hexdigest()[:12]}.img", _make)


def becoming_root() -> list[str]:
    """What a command of root's begins with."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is None:
        missing("the guest's Debian can be made by root alone, and there is no sudo")
    call([sudo, "-n", "true"])
    return [sudo, "-n"]


def _make(part: Path) -> None:
    root = part.with_name("system")
    as_root = becoming_root()
    debootstrap = program("debootstrap", "debootstrap")
    call([*as_root, "rm", "-rf", "--one-file-system", root])
    include = f"--include={','.join(_PACKAGES)}"
    call([*as_root, debootstrap, "--variant=minbase", include, SUITE, root, mirror()])
    extra = part.with_name("system-files")
    shutil.rmtree(extra, ignore_errors=True)
    _settings(extra)
    call([*as_root, "cp", "-r", "--no-preserve=ownership", f"{extra}/.", root])
    call([*as_root, "chroot", root, "depmod", kernel().version])
    call([*as_root, "chroot", root, "useradd", "--create-home", "alice"])
    for link, target in _links().items():
        call([*as_root, "ln", "-sf", target, root / link])
    for name in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        call([*as_root, "rm", "-rf", root / name])
    _make_ext4(root, part, _SIZE, as_root)
    call([*as_root, "chmod", "644", part])
    call([*as_root, "rm", "-rf", "--one-file-system", root])
    shutil.rmtree(extra)


def _make_ext4(folder: Path, disk: Path, size: str, as_root: Sequence[str] = ()) -> None:
    mke2fs = program("mke2fs", "e2fsprogs")
    call([*as_root, mke2fs, "-q", "-F", "-t", "ext4", "-d", folder, disk, size])


def _settings(folder: Path) -> None:
    for name, text in _SETTINGS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if "/bin/" in name else 0o644)
    for name in ("payload", "data"):
        (folder / name).mkdir()
    (folder / "usr/lib/modules").mkdir(parents=True)
    shutil.copytree(kernel().modules, folder / "usr/lib/modules" / kernel().version)


def _links() -> dict[str, str]:
    units = "etc/systemd/system"
    links = {f"{units}/{name}": "/dev/null" for name in _MASKED}
    links[f"{units}/multi-user.target.wants/scenario.service"] = (
        "/etc/systemd/system/scenario.service"
    )
    links[f"{units}/default.target"] = "/lib/systemd/system/multi-user.target"
    return links
