"""The guest's figures as works of their own: one core, so not to be held against the host's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benches.model import OURS, RATE, READS, Row


def join(host: Sequence[Row], guest: Sequence[dict[str, Any]]) -> list[Row]:
    """The host's rows, then the guest's, work by work."""
    rows = [*host]
    for work in dict.fromkeys(item["work"] for item in guest):
        rows += [_row(item) for item in guest if item["work"] == work]
    return rows


def _row(item: dict[str, Any]) -> Row:
    name, work = item["contender"], item["work"]
    return Row(
        work=f"lab {work}",
        title=f"In the kernel lab, one core: {work}",
        contender=f"{name}, /dev/nbd0" if name in (OURS, "qemu-nbd") else name,
        unit=RATE if work.startswith("dd") else READS,
        figures=item["figures"],
        cores=1,
        unavailable=item["unavailable"],
    )
