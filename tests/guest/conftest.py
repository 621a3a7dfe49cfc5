"""What is booted: an initramfs with the project's hook, and a small root."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import images
from support.guest.live import make_initramfs
from support.guest.small import make_root

SCRIPT = Path(__file__).with_name("small_root.sh")


@pytest.fixture(scope="session")
def initramfs(shared: Path) -> Path:
    """With the project's hook."""
    return images.once(shared / "live/initramfs", make_initramfs)


@pytest.fixture(scope="session")
def small_root(shared: Path) -> Path:
    """A small compressed root, which does what the kernel's command line says."""

    def make(folder: Path) -> None:
        folder.mkdir()
        make_root(folder, SCRIPT.read_text())

    return images.once(shared / "live/small", make) / "root.cloop"
