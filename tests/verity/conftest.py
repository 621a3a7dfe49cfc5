"""What the tests of digests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import iso


@pytest.fixture
def iso_of_chicken(tmp_path: Path, chicken: Path) -> Path:
    """An ISO 9660 image with the image chicken at /KNOPPIX/KNOPPIX."""
    folder = tmp_path / "disc" / "KNOPPIX"
    folder.mkdir(parents=True)
    shutil.copyfile(chicken, folder / "KNOPPIX")
    return iso.make(folder.parent, tmp_path / "cd.iso")
