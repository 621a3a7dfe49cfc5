"""The tasks of `cowcloop bench`, each done several times, in turn with kernel cloop."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cowcloop import _core, programs
from cowcloop.bench import reading
from cowcloop.bench.figures import Figures
from cowcloop.bench.kernel import KERNEL_DEVICE, why_no_kernel
from cowcloop.disk import Disk
from cowcloop.server import serve
from cowcloop.source import locate, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cowcloop.options import ImageKeywords

# Cold reads of every block of a large image would take long, and show nothing more.
_MOST_READS = 20_000
_RAW_BLOCK = 64 << 10


@dataclass
class Measurement:
    """All figures of one image, and what could not be measured."""

    #: a URL may hold secrets
    image: str = field(repr=False)
    size: int
    #: how the image is read
    options: ImageKeywords
    figures: list[Figures] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "image": shown(self.image),
            "size": self.size,
            "processors": os.cpu_count(),
            "figures": [figure.to_dict() for figure in self.figures],
            "notes": self.notes,
        }


def run(image: str, runs: int, **options: Unpack[ImageKeywords]) -> Measurement:
    """Measure reading an image: sequentially, at random, extracting; in process and served."""
    with Disk(image, **options) as disk:
        measured = Measurement(image, disk.size, options)
        missing = why_no_kernel(disk)
    sequential = Figures("sequential", "in process", "MB/s")
    at_random = Figures("random 4 KiB, cold", "in process", "reads/s")
    extract = Figures("extract", "to /dev/null", "MB/s")
    served = Figures("sequential", "nbdkit and nbdcopy", "MB/s", kernel=sequential.kernel)
    measured.figures = [sequential, at_random, extract]
    nbdcopy = _nbdcopy(measured)
    if nbdcopy:
        measured.figures.append(served)
    if missing:
        measured.notes.append(missing)
    places = reading.offsets(measured.size, _block_size(measured), _MOST_READS)
    for _ in range(runs):
        for figures, where in ((sequential, None), (at_random, places)):
            figures.values.append(_from_disk(measured, where))
            if missing is None:
                figures.kernel.append(_from_kernel(measured.size, where))
        extract.values.append(_extract(measured))
        if nbdcopy:
            served.values.append(_served(measured, nbdcopy))
    return measured


def _block_size(measured: Measurement) -> int:
    source = locate(measured.image, **measured.options)
    if _core.sniff(source) != "cloop":
        return _RAW_BLOCK
    return int(_core.image_info(source)["block_size"])


def _nbdcopy(measured: Measurement) -> str | None:
    try:
        return programs.find_program("nbdcopy", "libnbd-bin")
    except programs.MissingProgram as error:
        measured.notes.append(f"reading through nbdkit is not measured: {error}")
        return None


def _from_disk(measured: Measurement, places: list[int] | None) -> float:
    """Opened for each measurement, so that nothing of it is in the cache yet."""
    with Disk(measured.image, **measured.options) as disk:
        if places is None:
            return reading.sequential(disk.pread_into, disk.size)
        return reading.at_random(disk.pread_into, places, disk.size)


def _from_kernel(size: int, places: list[int] | None) -> float:
    with reading.BlockDevice(KERNEL_DEVICE) as device:
        if places is None:
            return reading.sequential(device.read, size)
        return reading.at_random(device.read, places, size)


def _extract(measured: Measurement) -> float:
    begin = time.perf_counter()
    _core.extract(locate(measured.image, **measured.options), [], os.devnull)
    return measured.size / 1e6 / (time.perf_counter() - begin)


def _served(measured: Measurement, nbdcopy: str) -> float:
    with serve(measured.image, **measured.options) as server:
        begin = time.perf_counter()
        subprocess.run([nbdcopy, server.uri, "null:"], check=True, stdin=subprocess.DEVNULL)
        return measured.size / 1e6 / (time.perf_counter() - begin)
