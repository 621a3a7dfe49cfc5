"""Repair, merge, pack and unpack, as Python calls them."""

from __future__ import annotations

from pathlib import Path

import cowcloop
import pytest
from cowcloop import _core
from support import cowfile

PLAIN = b"base" * 25600
CHANGED = {3: b"x" * 1024, 50: b"y" * 1024}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.write_bytes(PLAIN)
    return path


@pytest.fixture
def cow(tmp_path: Path) -> Path:
    path = tmp_path / "cow"
    path.write_bytes(cowfile.build(PLAIN, CHANGED))
    return path


@pytest.mark.parametrize("gzip", [False, True])
def test_pack_and_unpack(raw: Path, cow: Path, tmp_path: Path, gzip: bool) -> None:
    packed, back = tmp_path / "packed", tmp_path / "back"
    seen: list[int] = []
    done = _core.cow_pack(cow, packed, gzip=gzip, progress=lambda at, _: seen.append(at))
    assert done["blocks_used"] == 2
    assert seen
    _core.cow_unpack(packed, back)
    with cowcloop.open(raw, back, read_only=True) as disk:
        assert disk.read() == cowfile.merged(PLAIN, CHANGED)


def test_merge(raw: Path, cow: Path) -> None:
    assert _core.cow_merge(raw, cow) == {"blocks": 2, "already": False, "resumed": False}
    assert raw.read_bytes() == cowfile.merged(PLAIN, CHANGED)


def test_repair(raw: Path, cow: Path) -> None:
    made = bytearray(cow.read_bytes())
    made[6] |= 1
    made[1024] = 0
    cow.write_bytes(made)
    dry = _core.cow_repair(cow, dry_run=True)
    assert (dry["needed"], dry["changed"], dry["known"], dry["found"]) == (True, False, 1, 1)
    assert dry["backup"] is None
    assert cow.read_bytes() == made
    done = _core.cow_repair(cow)
    assert (done["changed"], done["found"]) == (True, 1)
    assert Path(done["backup"]).exists()
    assert str(cow) in done["summary"]
    with cowcloop.open(raw, cow, read_only=True) as disk:
        assert disk.read() == cowfile.merged(PLAIN, CHANGED)
