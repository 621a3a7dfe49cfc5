"""Where the table is kept, and what its rows are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benches import kernel_lab
from benches.material import Material
from benches.model import OURS, RATE, Row


def test_name_with_a_dot(small: Material, tmp_path: Path) -> None:
    """All of the name is kept."""
    command = [sys.executable, "-m", "benches", "--only", "nothing", "--name", "v0.2"]
    subprocess.run([*command, f"--size={small.size}", f"--output={tmp_path}"], check=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["v0.2.json", "v0.2.md"]


def test_guest_beside_host() -> None:
    """A row of another machine says how many cores that one has."""
    host = [Row("sequential", "In order", OURS, RATE, [1000.0])]
    names = ("work", "contender", "figures", "unavailable")
    guest = [dict(zip(names, ("dd bs=1M", "kernel cloop mended", [300.0], "")))]
    joined = kernel_lab.join(host, guest)[1]
    assert (joined.contender, joined.cores) == (
        "kernel cloop mended, kernel lab, 1 core, dd bs=1M",
        1,
    )
