"""cow repair: what the original driver leaves, and what of it can be had back."""

from __future__ import annotations

import json
from pathlib import Path

from support import cowfile, nbdclient
from support.cows import CHANGED, DATA, PLAIN, UNIT, dirty, layouts
from support.programs import cowcloop, refused
from support.server import attach


@layouts
def test_repair(raw: Path, tmp_path: Path, layout: str) -> None:
    cow = tmp_path / "d.cow"
    cow.write_bytes(dirty(layout))
    refused("extract", raw, cow, "-", says=("d.cow", "cow repair"))

    before = cow.read_bytes()
    dry = cowcloop("cow", "repair", "-n", cow)
    assert b"2 blocks to be found again" in dry.stdout
    assert cow.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.cow", "disk.raw"]

    done = cowcloop("cow", "repair", "-v", cow)
    assert b"2 blocks found again" in done.stdout
    assert b"the bitmap knew 1 block\n" in done.stderr
    backup = tmp_path / "d.cow.before-repair-1"
    assert backup.read_bytes() == before[: len(backup.read_bytes())]
    assert cowfile.original_refuses(cow, PLAIN) is None
    found = cowfile.parse(cow)
    assert found.head.layout == layout
    # The block of zeros cannot be known.
    assert found.blocks == {number: data for number, data in CHANGED.items() if number != 9}


def test_repair_leaves_a_clean_one_alone_unless_forced(cow: Path) -> None:
    before = cow.read_bytes()
    assert b"needs no repair" in cowcloop("cow", "repair", cow).stdout
    assert cow.read_bytes() == before
    assert b"0 blocks found again" in cowcloop("cow", "repair", "--force", cow).stdout
    assert cowfile.parse(cow).blocks == CHANGED


def test_repair_gives_up_blocks_that_the_file_ends_before(raw: Path, cow: Path) -> None:
    """What the original driver leaves when its disk is full: clean, with bits for nothing."""
    whole = cow.read_bytes()
    cow.write_bytes(whole[: -100 * UNIT])
    words = ("disk.cow", "block 159 ends at", "cow repair")
    refused("extract", raw, cow, "-", says=words)
    refused("attach", raw, cow, says=words)
    assert b"1 block that the file ends before to be given up" in (
        cowcloop("cow", "repair", "-n", cow).stdout
    )
    found = json.loads(cowcloop("cow", "repair", "--json", cow).stdout)
    assert (found["needed"], found["changed"], found["missing"]) == (True, True, 1)
    kept = {number: data for number, data in CHANGED.items() if number != 159}
    assert cowcloop("extract", raw, cow, "-").stdout == cowfile.merged(PLAIN, kept)
    assert cowfile.original_refuses(cow, PLAIN) is None
    assert b"needs no repair" in cowcloop("cow", "repair", cow).stdout
    # Or all at once.
    cow.write_bytes(whole[: -100 * UNIT])
    done = cowcloop("attach", "--repair", raw, cow)
    assert b"given up" in done.stderr
    cowcloop("detach", done.stdout.decode().strip())


def test_a_file_of_the_original_driver_that_ends_within_a_block(tmp_path: Path) -> None:
    """A request that ended at an odd sector went straight through."""
    base = DATA / "cowbase.raw"
    cow = tmp_path / "d.cow"
    cow.write_bytes((DATA / "driver31-halfblock-end.cow").read_bytes())
    assert cow.stat().st_size % UNIT == 512
    assert b"needs no repair" in cowcloop("cow", "repair", cow).stdout
    found = cowfile.parse(cow)
    device = cowfile.merged(base.read_bytes(), found.blocks)
    last = max(found.blocks)
    assert found.blocks[last][512:] == bytes(512) != found.blocks[last][:512]
    assert cowcloop("extract", base, cow, "-").stdout == device
    uri = attach(base, cow)
    handle = nbdclient.connect(uri)
    assert nbdclient.read_all(handle) == device
    handle.pwrite(b"!" * 10, last * UNIT + 700)
    handle.shutdown()
    cowcloop("detach", uri)
    device = device[: last * UNIT + 700] + b"!" * 10 + device[last * UNIT + 710 :]
    assert cowcloop("extract", base, cow, "-").stdout == device


def test_repair_as_json(tmp_path: Path) -> None:
    cow = tmp_path / "cow"
    made = bytearray(cowfile.build(bytes(100 * UNIT), {3: b"x" * UNIT}))
    made[6] |= 1
    made[1024] = 0
    cow.write_bytes(made)
    document = json.loads(cowcloop("cow", "repair", "--json", cow).stdout)
    assert (document["path"], document["found"], document["known"]) == (str(cow), 1, 0)
    assert Path(document["backup"]).exists()
    assert not json.loads(cowcloop("cow", "repair", "--json", cow).stdout)["needed"]
