"""The guest's figures as rows of the table, and its cloop beside cowcloop on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benches.model import OURS, RATE, READS, Row

_KERNEL = ("kernel cloop as it is", "kernel cloop mended")
# Kernel cloop handles one request at a time: its rate at depth 1 is that at any depth.
# Works on the host, the guest's work to hold them against, and what is to be reached against
# cloop as it is and mended.
_ACROSS = {
    "sequential": ("dd bs=1M", (10, 4)),
    "random-cold-1": ("random 4 KiB, depth 1", (2.5, 2.5)),
    "random-cold-16": ("random 4 KiB, depth 1", (6, 6)),
    "random-long": ("random 4 KiB, depth 1", (10, 10)),
}
# What is to be reached in the guest itself.
_WITHIN = {("dd bs=1M", "kernel cloop mended"): 1.5}


def join(host: Sequence[Row], guest: Sequence[dict[str, Any]]) -> list[Row]:
    """The host's rows with kernel cloop among them, then the guest's own works."""
    rows: list[Row] = []
    for at, row in enumerate(host):
        rows.append(row)
        last = at + 1 == len(host) or host[at + 1].work != row.work
        if last and row.work in _ACROSS:
            work, targets = _ACROSS[row.work]
            for name, wanted in zip(_KERNEL, targets):
                found = _find(guest, work, name)
                if found:
                    rows.append(_row(found, row.work, row.title, f"{name}, {work}", wanted))
    for work in dict.fromkeys(item["work"] for item in guest):
        title = f"In the kernel lab, one core: {work}"
        for item in guest:
            if item["work"] == work:
                target = _WITHIN.get((work, item["contender"]))
                name = item["contender"]
                name = f"{name}, /dev/nbd0" if name in (OURS, "qemu-nbd") else name
                rows.append(_row(item, f"lab {work}", title, name, target))
    return rows


def _find(guest: Sequence[dict[str, Any]], work: str, name: str) -> dict[str, Any] | None:
    wanted = (work, name)
    return next((item for item in guest if (item["work"], item["contender"]) == wanted), None)


def _row(item: dict[str, Any], work: str, title: str, name: str, target: float | None) -> Row:
    return Row(
        work=work,
        title=title,
        contender=name,
        unit=RATE if item["work"].startswith("dd") else READS,
        figures=item["figures"],
        target=target,
        unavailable=item["unavailable"],
    )
