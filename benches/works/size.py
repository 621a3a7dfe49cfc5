"""Whether the cost grows with the image: the same work on a small and on a very large image."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cowcloop

from benches import servers
from benches.material import BLOCK, Material
from benches.model import MILLISECONDS, RATE, Contender, UnavailableError, Unit, Work
from benches.programs import run, seconds
from benches.works import Setting

_SMALL = 64 << 20
_LARGE = 16 << 30
_PREAMBLE = 128

MEBIBYTES = Unit("MiB", more_is_better=False)

_PEAK = """
import sys, cowcloop
with cowcloop.open(sys.argv[1]) as disk:
    disk.pread(512, disk.size // 2)
    status = open("/proc/self/status").read()
    print(status.split("VmHWM:")[1].split()[0])
"""


def works(setting: Setting) -> Iterator[Work]:
    """The large image is measured against the small one."""

    def pair(figure: Callable[[Path], float]) -> list[Contender]:
        return [
            Contender("cowcloop", lambda: figure(_image(setting.material, _LARGE))),
            Contender("cowcloop, 64 MiB", lambda: figure(_image(setting.material, _SMALL))),
        ]

    yield Work(
        "size-sequential",
        "Sequential read of 16 GiB, nbdcopy to null:",
        RATE,
        pair(_sequential),
        runs=2,
    )
    yield Work(
        "size-first-byte",
        "From opening 16 GiB to the first byte, in process",
        MILLISECONDS,
        pair(_first_byte),
    )
    yield Work(
        "size-memory",
        "Memory of a Python process with 16 GiB open (2 MiB of index)",
        MEBIBYTES,
        pair(lambda image: float(run([sys.executable, "-c", _PEAK, image])) / 1024),
    )


def _sequential(image: Path) -> float:
    with servers.ours(image) as uri:
        return _size_of(image) / 1e6 / seconds(["nbdcopy", uri, "null:"])


def _first_byte(image: Path) -> float:
    begin = time.perf_counter()
    with cowcloop.open(image) as disk:
        disk.pread(512, disk.size // 2)
        return 1000 * (time.perf_counter() - begin)


def _size_of(image: Path) -> int:
    with cowcloop.open(image) as disk:
        return disk.size


def _image(material: Material, size: int) -> Path:
    """A V2.0 image of ``size`` bytes: the measured image's blocks, repeated."""
    target = material.folder / f"repeated-{size >> 20}M.cloop"
    if target.exists():
        return target
    source = material.cloop.read_bytes()
    block_size, count = struct.unpack_from(">II", source, _PREAMBLE)
    assert block_size == BLOCK
    entries = struct.unpack_from(f">{count + 1}Q", source, _PREAMBLE + 8)
    wanted = size // block_size
    _require_room(target, size * len(source) // material.size)
    temporary = target.with_suffix(".new")
    with temporary.open("wb") as out:
        out.write(source[:_PREAMBLE])
        out.write(struct.pack(">II", block_size, wanted))
        at = _PREAMBLE + 8 + 8 * (wanted + 1)
        for block in range(wanted):
            out.write(struct.pack(">Q", at))
            at += entries[block % count + 1] - entries[block % count]
        out.write(struct.pack(">Q", at))
        whole = source[entries[0] : entries[count]]
        for _ in range(wanted // count):
            out.write(whole)
        out.write(source[entries[0] : entries[wanted % count]])
    temporary.rename(target)
    return target


def _require_room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > free // 2:
        raise UnavailableError(f"{needed >> 20} MiB of disk are too much for {target.parent}")
    if needed > memory // 2:
        raise UnavailableError(f"an image of {needed >> 20} MiB does not fit into the page cache")
