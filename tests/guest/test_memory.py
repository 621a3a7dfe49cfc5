"""A small machine whose file system is served by a process in its own memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.guest import Payload, Told
from support.programs import program, run

SCENARIO = Path(__file__).with_name("scenario_memory.py")
_MEMORY_MIB = 224
_PATIENCE = 900


@pytest.mark.timeout(1200)
def test_more_is_written_than_there_is_memory(tmp_path: Path, chicken: Path) -> None:
    payload = Payload(tmp_path / "payload")
    (payload.folder / "images").mkdir()
    shutil.copy(chicken, payload.folder / "images/base.cloop")
    data = tmp_path / "data.img"
    run(program("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", data, "1G")
    scenario = SCENARIO.read_text()
    machine = payload.run(scenario, data, timeout=_PATIENCE, systemd=False, memory=_MEMORY_MIB)
    told = Told.of(machine)
    assert told.failed() == {}, told.console
    assert told["written"] == [True, True]
    assert told["check"][0] == 0, told["check"]
    assert told["end"] == 0
    # Nothing was killed for want of memory, and nothing hung.
    assert told["kernel"] == [0, "", ""]
