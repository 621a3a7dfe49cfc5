"""Root directories and what boots them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bootable import make_initrd, make_tree, require_grub


@pytest.fixture(autouse=True)
def _grub() -> None:
    require_grub()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """With a kernel."""
    return make_tree(tmp_path)


@pytest.fixture
def initrd(tmp_path: Path) -> Path:
    """Any."""
    return make_initrd(tmp_path)
