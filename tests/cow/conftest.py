"""The base and the cowfile of most tests here."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import cowfile
from support.cows import CHANGED, PLAIN


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(PLAIN)
    return path


@pytest.fixture
def cow(tmp_path: Path) -> Path:
    path = tmp_path / "disk.cow"
    path.write_bytes(cowfile.build(PLAIN, CHANGED))
    return path
