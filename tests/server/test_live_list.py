"""list --watch: refused without a terminal; its figures are rates."""

from __future__ import annotations

import io
from typing import Any

from cowcloop.cli.live_list import Rates, drawing, shown
from rich.console import Console
from support.programs import cowcloop


def _device(read_bytes: int, hits: int, misses: int, writes: int) -> dict[str, Any]:
    return {
        "id": "abc",
        "uri": "nbd+unix:///?socket=/s",
        "socket": "/s",
        "mount": None,
        "device": None,
        "base": {"reads": 1, "read_bytes": read_bytes},
        "cache": {"hits": hits, "misses": misses},
        "cowfiles": [
            {
                "path": "/c.cow",
                "state": "dirty",
                "blocks_used": 3,
                "reads": 0,
                "writes": writes,
                "base_read_bytes": read_bytes,
            }
        ],
    }


def test_rates() -> None:
    rates = Rates()
    first = shown(_device(0, 0, 0, 5), rates, 10.0)
    assert first.heading == "/s   base -   cache hits -"
    assert first.rows[0][1:4] == ("-", "-", "-")
    second = shown(_device(4096, 3, 1, 25), rates, 12.0)
    assert second.heading == "/s   base 2.0 KiB/s   cache hits 75 %"
    assert second.rows[0][:6] == ("c.cow", "2.0 KiB/s", "0/s", "10/s", "dirty", "3.0 KiB")
    # A session that was opened anew begins at 0.
    third = shown(_device(4096, 3, 1, 2), rates, 13.0)
    assert third.heading == "/s   base 0 bytes/s   cache hits -"
    assert third.rows[0][1:4] == ("0 bytes/s", "0/s", "-")


def test_the_state_of_a_device_without_a_cowfile() -> None:
    bare = {**_device(0, 0, 0, 0), "cowfiles": []}
    for more, state in (
        ({}, "   read-only"),
        ({"sessions": []}, ""),
        ({"suspended": True}, "   read-only, suspended"),
        ({"sessions": [], "suspended": True}, "   suspended"),
    ):
        heading = shown({**bare, **more}, Rates(), 1.0).heading
        assert heading == f"/s   base -   cache hits -{state}"


def test_columns_stay_where_they_are() -> None:
    """Whatever the figures are; and nothing is wider than the terminal."""
    for width in (40, 60, 80, 120):
        pictures = []
        for factor in (1, 1000, 10**5):
            rates = Rates()
            shown(_device(0, 0, 0, 0), rates, 1.0)
            device = shown(_device(4096 * factor, factor, 1, 9 * factor), rates, 2.0)
            out = Console(width=width, file=io.StringIO(), record=True)
            out.print(drawing([device], out))
            pictures.append(out.export_text().splitlines())
        assert all(len(line) <= width for picture in pictures for line in picture)
        if width >= 80:
            assert len({picture[1].rstrip() for picture in pictures}) == 1
            assert len({picture[2].index("dirty") for picture in pictures}) == 1


def test_it_needs_a_terminal() -> None:
    for words in (("--watch",), ("--watch", "--json")):
        done = cowcloop("list", *words, expect=2)
        assert len(done.stderr.splitlines()) == 1
