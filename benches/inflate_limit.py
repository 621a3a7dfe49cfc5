"""How fast this machine inflates an image in memory, on all cores, and does nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from benches.model import UnavailableError
from benches.programs import run

_ROOT = Path(__file__).parent.parent


def inflate_limit(image: Path) -> float:
    """MB/s of inflated bytes, by the engine's inflater, without reading, writing or an order."""
    program = _ROOT / "target/release/examples/inflate_limit"
    if not program.exists():
        cargo = Path.home() / ".cargo/bin/cargo"
        command = [str(cargo) if cargo.exists() else "cargo", "build", "--release", "--locked"]
        try:
            run([*command, "--manifest-path", _ROOT / "Cargo.toml",
                 "--package", "cowcloop-engine", "--example", "inflate_limit"])  # fmt: skip
        except FileNotFoundError:
            raise UnavailableError("cargo is not installed") from None
    return float(run([program, image, str(os.cpu_count() or 1)]))
