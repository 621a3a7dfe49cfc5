"""A base and what was written over it: what tests of cowfiles begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import cloop, cowfile

UNIT = cowfile.UNIT
PLAIN = cloop.sample(160 * UNIT, 4096)
CHANGED = {0: b"a" * UNIT, 8: b"b" * UNIT, 9: b"\0" * UNIT, 159: b"c" * UNIT}

#: Files that the original programs wrote.
DATA = Path(__file__).parent.parent / "data"

layouts = pytest.mark.parametrize("layout", cowfile.LAYOUTS)


def dirty(layout: str) -> bytes:
    """As a crash of the original driver leaves it: data of 4 blocks, a bitmap that knows 1."""
    data = bytearray(cowfile.build(PLAIN, CHANGED, layout, flags=cowfile.DIRTY))
    data[UNIT : UNIT + 20] = b"\x01" + b"\0" * 19
    return bytes(data)
