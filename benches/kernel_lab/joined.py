"""The guest's figures as works of their own: one core, so not to be held against the host's.

But for one: kernel cloop in the guest stands below the same image read in order on the host, too,
with the cores of each. It handles one request at a time, so that a second core would probably gain
it little; that was not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benches.model import OURS, RATE, READS, Row

# The host's work, the guest's, and the contenders that stand in both.
_SEQUENTIAL = "sequential"
_BOTH = "dd bs=1M"
_KERNEL = "kernel cloop"


def join(host: Sequence[Row], guest: Sequence[dict[str, Any]]) -> list[Row]:
    """The host's rows, then the guest's, work by work."""
    rows = [*host]
    ours = next((row for row in host if row.work == _SEQUENTIAL), None)
    if ours:
        last = max(at for at, row in enumerate(rows) if row.work == _SEQUENTIAL)
        rows[last + 1 : last + 1] = [
            Row(
                work=ours.work,
                title=ours.title,
                contender=f"{item['contender']}, kernel lab, 1 core, {_BOTH}",
                unit=ours.unit,
                figures=item["figures"],
                cores=1,
                unavailable=item["unavailable"],
            )
            for item in guest
            if item["work"] == _BOTH and item["contender"].startswith(_KERNEL)
        ]
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
