"""list --watch: refused without a terminal; its figures are rates."""

from __future__ import annotations

from typing import Any

from cowcloop.cli.live_list import Rates, rows
from support.programs import cowcloop


def _device(read_bytes: int, hits: int, misses: int, writes: int) -> dict[str, Any]:
    return {
        "id": "abc",
        "uri": "nbd+unix:///?socket=s",
        "mount": None,
        "device": None,
        "base": {"reads": 1, "read_bytes": read_bytes},
        "cache": {"hits": hits, "misses": misses},
        "cowfiles": [
            {"path": "/c.cow", "state": "dirty", "blocks_used": 3, "reads": 0, "writes": writes}
        ],
    }


def test_rates() -> None:
    rates = Rates()
    (first,) = rows(_device(0, 0, 0, 5), rates, 10.0)
    assert first[2:6] == ("-", "-", "-", "-")
    (second,) = rows(_device(4096, 3, 1, 25), rates, 12.0)
    assert second[1:7] == ("c.cow", "2.0 KiB/s", "0/s", "10/s", "75 %", "dirty, 3.0 KiB")
    # A session that was opened anew begins at 0.
    (third,) = rows(_device(4096, 3, 1, 2), rates, 13.0)
    assert third[2:6] == ("0 bytes/s", "0/s", "-", "-")


def test_it_needs_a_terminal() -> None:
    for words in (("--watch",), ("--watch", "--json")):
        done = cowcloop("list", *words, expect=2)
        assert len(done.stderr.splitlines()) == 1
