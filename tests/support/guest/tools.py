"""A root with Debian's tools that make an initramfs, and the modules of the guest's kernel."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cowcloop

from support.guest.kernel import kernel
from support.guest.packages import SUITE, cache, call, fetch, unpack
from support.guest.system import becoming_root
from support.images import once
from support.programs import ROOT, program

# What Debian takes for granted on a machine has to be named.
_ESSENTIAL = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "diffutils", "dpkg", "findutils"),
    *("grep", "gzip", "hostname", "libc-bin", "mawk", "mount", "sed", "util-linux"),
)

#: Where Debian's package has them.
_LIBRARY = "usr/lib/cowcloop"
_PLACES = {
    "boot": f"{_LIBRARY}/boot",
    "dracut": "usr/lib/dracut/modules.d",
    "initramfs-tools": "usr/share/initramfs-tools",
}


@contextlib.contextmanager
def tools_with_cowcloop(packages: Sequence[str], extra: dict[str, bytes]) -> Iterator[Path]:
    """The root of packages with the files of ours, and with `extra` programs and files."""
    as_root = becoming_root()
    tools = _tools(packages)
    # Files that do not change are shared with what others make at the same time.
    with tempfile.TemporaryDirectory(prefix="tools-", dir=cache()) as folder:
        root, added = Path(folder) / "root", Path(folder) / "added"
        call([*as_root, "cp", "-al", tools, root])
        _add_cowcloop(added)
        for name, data in extra.items():
            path = added / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755)
        call([*as_root, "cp", "-r", "--remove-destination", f"{added}/.", root])
        try:
            yield root
        finally:
            call([*as_root, "rm", "-rf", "--one-file-system", root])


def call_in(root: Path, *command: str, proc: bool = False) -> None:
    """Run a program of the root's as root, and with /proc where it is wanted."""
    inside = ["chroot", str(root), "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin", *command]
    if proc:
        mount = 'mount -t proc proc "$0" && exec "$@"'
        inside = ["unshare", "--mount", "sh", "-c", mount, f"{root}/proc", *inside]
    call([*becoming_root(), *inside])


def _add_cowcloop(folder: Path) -> None:
    """The files of our package that a hook needs."""
    for source, target in _PLACES.items():
        shutil.copytree(ROOT / "contrib" / source, folder / target)
    daemon = folder / _LIBRARY / "cowcloop/lib/cowcloopd"
    daemon.parent.mkdir(parents=True)
    shutil.copy(Path(cowcloop.__file__).parent / "lib/cowcloopd", daemon)


def _tools(packages: Sequence[str]) -> Path:
    made_of = repr((_ESSENTIAL, tuple(packages), kernel().version)).encode()
    place = cache() / f"tools-{hashlib.sha256(made_of).hexdigest()[:12]}"
    return once(place, lambda root: _make_tools(packages, root))


def _make_tools(packages: Sequence[str], root: Path) -> None:
    as_root = becoming_root()
    call([*as_root, "rm", "-rf", root])
    unpack(fetch(SUITE, [*_ESSENTIAL, *packages]), root)
    modules = root / "usr/lib/modules"
    modules.mkdir(parents=True)
    shutil.copytree(kernel().modules, modules / kernel().version, symlinks=True)
    for configuration in kernel().image.parent.glob("config-*"):
        shutil.copy(configuration, root / "boot")
    call([*as_root, program("mknod", "coreutils"), "-m", "666", root / "dev/null", "c", "1", "3"])
    # What the packages' scripts would do.
    (root / "usr/bin/awk").symlink_to("mawk")
    shutil.copy(root / "usr/share/base-passwd/passwd.master", root / "etc/passwd")
    shutil.copy(root / "usr/share/base-passwd/group.master", root / "etc/group")
    (root / "dev/fd").symlink_to("/proc/self/fd")
    call([*as_root, "chroot", root, "/usr/sbin/ldconfig"])
    call([*as_root, "chroot", root, "/usr/sbin/depmod", kernel().version])
