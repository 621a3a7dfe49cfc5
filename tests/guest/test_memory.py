"""A small machine whose file system is served by a process in its own memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.guest import Told
from support.guest.life import PATIENCE, make_data, make_payload

SCENARIO = Path(__file__).with_name("scenario_memory.py")
_MEMORY_MIB = 224


@pytest.mark.timeout(2 * PATIENCE)
def test_more_is_written_than_there_is_memory(tmp_path: Path, chicken: Path) -> None:
    payload = make_payload(tmp_path, chicken)
    data = make_data(tmp_path, "1G")
    scenario = SCENARIO.read_text()
    machine = payload.run(scenario, data, timeout=PATIENCE, systemd=False, memory=_MEMORY_MIB)
    told = Told.of(machine)
    assert told.failed() == {}, told.console
    assert told["written"] == [True, True]
    assert told["check"][0] == 0, told["check"]
    assert told["end"] == 0
    # Nothing was killed for want of memory, and nothing hung.
    assert told["kernel"] == [0, "", ""]
