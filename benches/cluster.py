"""The work of create and verify, spread over processes: what a range costs beside its blocks.

``python -m benches.cluster`` compares a local run with Dask's and with a process pool, on this
machine, and measures by itself what limits a large cluster: the writer, and the scheduler.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cowcloop
import psutil
from cowcloop import _core
from cowcloop.cluster import Pool, creating, scheduler, verifying
from cowcloop.sizes import parse_size

from benches import machine
from benches.material import BLOCK, Material, memory_folder, prepare

#: Tasks that do nothing, to time the scheduler.
_EMPTY = 2000


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _nothing() -> None:
    """The work of an empty task."""


def _each(pool: Pool) -> float:
    """Seconds of an empty task, in a window of the usual size."""
    window = pool.window(creating.RANGE)
    out: list[Any] = []
    began = time.monotonic()
    for _ in range(_EMPTY):
        out.append(pool.executor.submit(_nothing))
        if len(out) >= window:
            out.pop(0).result()
    for future in out:
        future.result()
    return (time.monotonic() - began) / _EMPTY


def _writer(material: Material, out: Path) -> float:
    """Bytes of the device a second that the writer takes, from ranges compressed before."""
    piece = creating.RANGE
    compressor = _core.Compressor()
    ranges = [
        compressor.compress_range(material.raw, at, min(piece, material.size - at))
        for at in range(0, material.size, piece)
    ]
    assembly = _core.Assembly(material.raw, out)

    def append() -> None:
        for each in ranges:
            assembly.append(*each)

    seconds = _seconds(append)
    assembly.close()
    return material.size / seconds


def _processor_time() -> float:
    """Seconds that this process and the workers have computed for."""
    own = psutil.Process()
    times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


class _Runs:
    """The figures of one image: seconds on the clock, and of all processors."""

    def __init__(self, material: Material, scratch: Path, runs: int) -> None:
        self.material = material
        self.out = scratch / "out.cloop"
        self.runs = runs
        self.rows: dict[str, list[tuple[float, float]]] = {}

    def measure(self, name: str, threads: int | None, executor: Executor | None) -> None:
        """A run of create and one of verify."""
        image = cowcloop.CloopImage(self.material.cloop)
        raw = self.material.raw

        def create() -> object:
            return cowcloop.create(raw, self.out, threads=threads, executor=executor)

        def verify() -> object:
            return image.verify(threads=threads, executor=executor)

        for work, run in (("create", create), ("verify", verify)):
            before = _processor_time()
            seconds = _seconds(run)
            row = self.rows.setdefault(f"{work}, {name}", [])
            row.append((seconds, _processor_time() - before))


def _measure(material: Material, scratch: Path, runs: int) -> dict[str, Any]:
    figures = _Runs(material, scratch, runs)
    spawn = get_context("spawn")
    found: dict[str, Any] = {}
    with (
        scheduler.connected("local:1") as one,
        scheduler.connected("local:2") as two,
        ProcessPoolExecutor(2, spawn) as processes,
    ):
        contenders: list[tuple[str, int | None, Executor | None]] = [
            ("local, 1 thread", 1, None),
            ("local, 2 threads", 2, None),
            ("Dask, 1 worker", None, one.executor),
            ("Dask, 2 workers", None, two.executor),
            ("process pool, 2", None, processes),
        ]
        # What a process loads at its first task is no part of it.
        for pool in (one, two, Pool.of(processes)):
            for future in [pool.executor.submit(_load) for _ in range(8)]:
                future.result()
        for _ in range(runs):
            for contender in contenders:
                figures.measure(*contender)
        found["empty task, Dask"] = min(_each(two) for _ in range(runs))
        found["empty task, process pool"] = min(_each(Pool.of(processes)) for _ in range(runs))
    found["writer, bytes a second"] = max(_writer(material, figures.out) for _ in range(runs))
    for index, what in enumerate(("seconds", "processor")):
        found[what] = {
            name: statistics.median(run[index] for run in each)
            for name, each in figures.rows.items()
        }
    return found


def _load() -> None:
    """Load what the first range would."""
    from cowcloop.cluster import tasks

    assert tasks


def _show(found: dict[str, Any], material: Material) -> None:
    blocks = material.size // BLOCK
    print("| work | seconds | processor time a block | beside local |")
    print("|---|---|---|---|")
    for name, seconds in found["seconds"].items():
        work = name.partition(",")[0]
        spent = found["processor"][name]
        more = spent - found["processor"][f"{work}, local, 1 thread"]
        shown = "" if ", local" in name else f"{more / blocks * 1e6:+.1f} µs"
        print(f"| {name} | {seconds:.2f} | {spent / blocks * 1e6:.1f} µs | {shown} |")
    for name in ("empty task, Dask", "empty task, process pool"):
        print(f"{name}: {found[name] * 1e6:,.0f} microseconds")
    print(f"writer: {found['writer, bytes a second'] / 1e6:,.0f} MB/s of the device")
    per_create = creating.RANGE // BLOCK
    per_verify = verifying.RANGE // BLOCK
    print(f"blocks in a range: create {per_create}, verify {per_verify}")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benches.cluster", description=__doc__)
    parser.add_argument("--size", type=parse_size, default=512 << 20, help="of the image: 512M")
    parser.add_argument("--runs", type=int, default=3, help="of each program: 3")
    parser.add_argument("--json", type=Path, help="the figures, for programs")
    asked = parser.parse_args()
    busy = machine.ProcessorTime()
    material = prepare(asked.size)
    with tempfile.TemporaryDirectory(dir=memory_folder(), prefix="cowcloop-bench-") as folder:
        found = _measure(material, Path(folder), asked.runs)
    _show(found, material)
    print(f"load {machine.load():.1f}, {busy.stolen_percent():.0f} % of processor time stolen")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
