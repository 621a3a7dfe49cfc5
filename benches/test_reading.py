"""The engine and the Python API: reading (``pytest benches``; an ordinary run leaves it out)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cowcloop
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.material import PAGE, Material, offsets


@pytest.fixture
def disk(small: Material) -> Iterator[cowcloop.Disk]:
    """The image alone, nothing of it cached."""
    with cowcloop.open(small.cloop) as disk:
        yield disk


def test_cold_4k(benchmark: BenchmarkFixture, small: Material) -> None:
    """Every block touched once, in random order; a figure counts all these reads."""
    places = offsets(small)
    buffer = bytearray(PAGE)

    def fresh() -> tuple[tuple[cowcloop.Disk], dict[str, object]]:
        return (cowcloop.open(small.cloop),), {}

    def read(disk: cowcloop.Disk) -> None:
        with disk:
            for at in places:
                disk.pread_into(buffer, at)

    benchmark.extra_info["reads"] = len(places)
    benchmark.pedantic(read, setup=fresh, rounds=5)


def test_cached_4k(benchmark: BenchmarkFixture, disk: cowcloop.Disk) -> None:
    """One read of a block that is in the cache."""
    buffer = bytearray(PAGE)
    disk.pread_into(buffer, 0)
    benchmark(disk.pread_into, buffer, PAGE)


def test_sequential_1m(benchmark: BenchmarkFixture, small: Material) -> None:
    """The whole image in reads of 1 MiB."""
    buffer = bytearray(1 << 20)

    def read() -> None:
        with cowcloop.open(small.cloop) as disk:
            for at in range(0, disk.size, len(buffer)):
                disk.pread_into(buffer, at)

    benchmark.extra_info["bytes"] = small.size
    benchmark.pedantic(read, rounds=5, warmup_rounds=1)


def test_overlay_lookup(benchmark: BenchmarkFixture, small: Material, tmp_path: Path) -> None:
    """A read of 1 MiB whose 4 KiB blocks alternate between cowfile and cached image."""
    with cowcloop.open(small.cloop, tmp_path / "bench.cow") as disk:
        buffer = bytearray(1 << 20)
        for at in range(0, len(buffer), 2 * PAGE):
            disk.pwrite(bytes(PAGE), at)
        disk.pread_into(buffer, 0)
        benchmark(disk.pread_into, buffer, 0)


def test_overlay_write_4k(benchmark: BenchmarkFixture, small: Material, tmp_path: Path) -> None:
    """A write of 4 KiB over an earlier one."""
    with cowcloop.open(small.cloop, tmp_path / "bench.cow") as disk:
        benchmark(disk.pwrite, bytes(PAGE), PAGE)


def test_open(benchmark: BenchmarkFixture, small: Material) -> None:
    """Opening and closing the image."""
    benchmark(lambda: cowcloop.open(small.cloop).close())
