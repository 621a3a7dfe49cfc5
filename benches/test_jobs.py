"""The engine and the Python API: extract, create and verify, without the start of a program."""

from __future__ import annotations

from pathlib import Path

from cowcloop import _core
from pytest_benchmark.fixture import BenchmarkFixture

from benches.material import Material


def test_extract(benchmark: BenchmarkFixture, small: Material, scratch: Path) -> None:
    """To a file in memory."""
    benchmark.extra_info["bytes"] = small.size
    out = scratch / "out.raw"
    benchmark.pedantic(_core.extract, (small.cloop, [], out), rounds=5, warmup_rounds=1)


def test_create(benchmark: BenchmarkFixture, small: Material, scratch: Path) -> None:
    """At the default level."""
    benchmark.extra_info["bytes"] = small.size
    benchmark.pedantic(_core.create, (small.raw, scratch / "out.cloop"), rounds=2)


def test_verify(benchmark: BenchmarkFixture, small: Material) -> None:
    """Every block inflated and checked, and thrown away."""
    benchmark.extra_info["bytes"] = small.size
    benchmark.pedantic(_core.verify, (small.cloop,), rounds=5, warmup_rounds=1)
