"""An initramfs: busybox, modules, programs with the libraries that they need, and /init."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.guest.kernel import kernel
from support.guest.packages import SUITE, cache, call, fetch, unpack
from support.images import once
from support.programs import program

_TYPES = {"file": 0o100000, "directory": 0o040000, "link": 0o120000}
_LIBRARY = re.compile(r"(/\S+) \(0x")

_BEGIN = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mkdir -p /proc /sys /dev /tmp /run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in {modules}; do insmod /modules/$module.ko || echo "insmod $module failed"; done
"""


class Initramfs:
    """Files are added; save() writes the archive, which names no time and no owner but root."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}
        self.add("/bin/busybox", busybox().read_bytes(), 0o755)

    def add(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A file, with the folders that it is in."""
        for parent in reversed(Path(path).parents):
            self._entries.setdefault(str(parent), (_TYPES["directory"] | 0o755, b""))
        self._entries[path] = (_TYPES["file"] | mode, data)

    def add_program(self, source: str | os.PathLike[str], path: str | None = None) -> None:
        """A program or a shared object of this machine, and the libraries that ldd names."""
        source = os.fspath(source)
        self.add(path or source, Path(source).read_bytes(), 0o755)
        ldd = subprocess.run(
            [program("ldd", "libc-bin"), source], capture_output=True, text=True, check=False
        )
        for library in _LIBRARY.findall(ldd.stdout):
            self.add(library, Path(library).read_bytes(), 0o755)

    def save(self, place: Path, script: str, modules: Sequence[str] = ()) -> Path:
        """The archive, whose /init loads modules, runs a script and switches the machine off."""
        loaded = kernel().with_dependencies(modules)
        for name, data in loaded.items():
            self.add(f"/modules/{name}.ko", data)
        init = _BEGIN.format(modules=" ".join(loaded)) + script + "\npoweroff -f\n"
        self.add("/init", init.encode(), 0o755)
        with gzip.GzipFile(place, "wb", compresslevel=1, mtime=0) as file:
            for number, path in enumerate(sorted(self._entries)):
                if path != "/":
                    mode, data = self._entries[path]
                    file.write(_entry(path.lstrip("/"), number, mode, data))
            file.write(_entry("TRAILER!!!", 0, 0, b""))
        return place


def _entry(name: str, inode: int, mode: int, data: bytes) -> bytes:
    """One file in the archive format that the kernel takes, which cpio calls newc."""
    encoded = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def busybox() -> Path:
    """The program, which needs no library."""
    return once(cache() / "busybox", _make_busybox)


def _make_busybox(part: Path) -> None:
    folder = part.with_name("busybox-package")
    unpack(fetch(SUITE, ["busybox-static"], alone=True), folder)
    part.write_bytes((folder / "usr/bin/busybox").read_bytes())
    call(["rm", "-rf", folder])
