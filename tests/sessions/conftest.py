"""An image to be shared, and a folder for its sessions."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import cloop
from support.sessions import BLOCK, PLAIN


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "sessions"
    path.mkdir()
    return path
