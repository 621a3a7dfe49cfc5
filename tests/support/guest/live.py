"""An initramfs with the project's hook, made by Debian's own tools in a root of their own."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cowcloop

from support.guest.kernel import kernel
from support.guest.packages import SUITE, cache, call, fetch, unpack
from support.guest.system import becoming_root
from support.images import once
from support.programs import ROOT, program

# What Debian takes for granted on a machine has to be named.
_ESSENTIAL = (
    *("base-files", "bash", "coreutils", "dash", "diffutils", "dpkg", "findutils", "grep", "gzip"),
    *("hostname", "libc-bin", "mawk", "mount", "sed", "util-linux"),
)
_TOOLS = (
    "busybox",
    "ca-certificates",
    "cpio",
    "e2fsprogs",
    "initramfs-tools",
    "kmod",
    "nbd-client",
    "udev",
    "zstd",
)

#: Where Debian's package has them.
_LIBRARY = "usr/lib/cowcloop"
_PLACES = {"boot": f"{_LIBRARY}/boot", "initramfs-tools": "usr/share/initramfs-tools"}

# The modules of the emulated machine; the hook adds its own.
_MODULES = "virtio_pci\nvirtio_blk\nvirtio_net\nvirtio_scsi\nsr_mod\n"
_SETTINGS = {"MODULES": "list", "BUSYBOX": "y", "COMPRESS": "zstd"}


def make_initramfs(place: Path, **settings: str) -> None:
    """What mkinitramfs makes with the hook; `settings` are those of initramfs.conf."""
    as_root = becoming_root()
    tools = _tools()
    # Files that do not change are shared with what others make at the same time.
    with tempfile.TemporaryDirectory(prefix="live-", dir=cache()) as folder:
        root = Path(folder) / "root"
        call([*as_root, "cp", "-al", tools, root])
        extra = Path(folder) / "extra"
        _add_cowcloop(extra)
        configuration = extra / "etc/live"
        configuration.mkdir(parents=True)
        (configuration / "modules").write_text(_MODULES)
        lines = [f"{name}={value}\n" for name, value in {**_SETTINGS, **settings}.items()]
        (configuration / "initramfs.conf").write_text("".join(lines))
        call([*as_root, "cp", "-r", "--remove-destination", f"{extra}/.", root])
        path = "PATH=/usr/sbin:/usr/bin"
        make = ["mkinitramfs", "-d", "/etc/live", "-o", "/initramfs", kernel().version]
        call([*as_root, "chroot", root, "/usr/bin/env", "-i", path, *make])
        call([*as_root, "chmod", "644", root / "initramfs"])
        shutil.copy(root / "initramfs", place)
        call([*as_root, "rm", "-rf", "--one-file-system", root])


@contextlib.contextmanager
def live_tree(init: str) -> Iterator[Path]:
    """A root directory whose /sbin/init runs a script, with all that makes an initramfs of it."""
    as_root = becoming_root()
    tools = _tools()
    with tempfile.TemporaryDirectory(prefix="live-", dir=cache()) as folder:
        root, extra = Path(folder) / "root", Path(folder) / "extra"
        call([*as_root, "cp", "-al", tools, root])
        _add_cowcloop(extra)
        for path, data in (
            (extra / "boot" / kernel().image.name, kernel().image.read_bytes()),
            (extra / "usr/sbin/init", init.encode()),
        ):
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
            path.chmod(0o755)
        call([*as_root, "cp", "-r", "--remove-destination", f"{extra}/.", root])
        try:
            yield root
        finally:
            call([*as_root, "rm", "-rf", "--one-file-system", root])


def _add_cowcloop(folder: Path) -> None:
    """The files of our package that a hook needs."""
    for source, target in _PLACES.items():
        shutil.copytree(ROOT / "contrib" / source, folder / target)
    daemon = folder / _LIBRARY / "cowcloop/lib/cowcloopd"
    daemon.parent.mkdir(parents=True)
    shutil.copy(Path(cowcloop.__file__).parent / "lib/cowcloopd", daemon)


def _tools() -> Path:
    """A root with Debian's tools that make an initramfs, and the modules of its kernel."""
    made_of = repr((_ESSENTIAL, _TOOLS, kernel().version)).encode()
    return once(cache() / f"tools-{hashlib.sha256(made_of).hexdigest()[:12]}", _make_tools)


def _make_tools(root: Path) -> None:
    as_root = becoming_root()
    call([*as_root, "rm", "-rf", root])
    unpack(fetch(SUITE, [*_ESSENTIAL, *_TOOLS]), root)
    modules = root / "usr/lib/modules"
    modules.mkdir(parents=True)
    shutil.copytree(kernel().modules, modules / kernel().version, symlinks=True)
    for configuration in kernel().image.parent.glob("config-*"):
        shutil.copy(configuration, root / "boot")
    call([*as_root, program("mknod", "coreutils"), "-m", "666", root / "dev/null", "c", "1", "3"])
    call([*as_root, "chroot", root, "/usr/sbin/depmod", kernel().version])
