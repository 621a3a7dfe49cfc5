"""Debian's cloud kernel and its modules."""

from __future__ import annotations

import functools
import lzma
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.guest.packages import SUITE, apt_options, cache, call, fetch, unpack
from support.images import once
from support.programs import program

_META = "linux-image-cloud-amd64"
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True)
class Kernel:
    """A kernel: its image, and the folder with its modules."""

    image: Path
    modules: Path

    @property
    def version(self) -> str:
        """What uname -r says in the guest."""
        return self.modules.name

    def with_dependencies(self, names: Sequence[str]) -> dict[str, bytes]:
        """Modules, decompressed, each behind those that it needs."""
        found: dict[str, bytes] = {}

        def add(name: str) -> None:
            if name in found or name not in self._files:
                # What is not there is built in.
                return
            data = lzma.decompress(self._files[name].read_bytes())
            depends = _DEPENDS.search(data)
            for needed in (depends[1].decode() if depends else "").split(","):
                add(needed.replace("-", "_"))
            found[name] = data

        for name in names:
            add(name)
        return found

    @functools.cached_property
    def _files(self) -> dict[str, Path]:
        paths = self.modules.rglob("*.ko.xz")
        return {path.name.removesuffix(".ko.xz").replace("-", "_"): path for path in paths}


def kernel() -> Kernel:
    """The stock kernel of the guest's suite."""
    folder = once(cache() / "kernel", _make)
    return Kernel(next(folder.glob("boot/vmlinuz-*")), next(folder.glob("usr/lib/modules/*")))


def _make(part: Path) -> None:
    apt_cache = program("apt-cache", "apt")
    depends = call([apt_cache, *apt_options(SUITE), "depends", "--important", _META])
    name = next(word for word in depends.split() if word.startswith("linux-image-6"))
    part.mkdir(parents=True, exist_ok=True)
    unpack(fetch(SUITE, [name], alone=True), part)
