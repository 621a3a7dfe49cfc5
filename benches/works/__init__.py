"""The works, one module for each group; `all_works` lists them in the table's order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.material import Material
from benches.model import Work


@dataclass(frozen=True)
class Setting:
    """The image, the folder and the times that the works use."""

    material: Material
    # For output files; in memory, so that no disk is measured.
    scratch: Path
    # The length of a work that runs for a given time.
    seconds: float


def all_works(setting: Setting) -> Iterator[Work]:
    """Every work, ready to be measured."""
    from benches.works import (
        create,
        extract,
        mount,
        mount_write,
        overlay_writes,
        random_reads,
        remote,
        remote_sessions,
        sequential,
        size,
        trust,
    )

    reading = (sequential, random_reads, extract)
    distant = (remote, remote_sessions, trust)
    for module in (*reading, create, overlay_writes, mount, mount_write, *distant, size):
        yield from module.works(setting)
