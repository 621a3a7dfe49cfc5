"""Fixtures of the pytest-benchmark set."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches.material import Material, memory_folder, prepare


@pytest.fixture(scope="session")
def small() -> Material:
    """A small image, from the cache of the whole benchmark."""
    return prepare(64 << 20)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory, so that no disk is measured."""
    with tempfile.TemporaryDirectory(dir=memory_folder(), prefix="cowcloop-bench-") as folder:
        yield Path(folder)
