"""bench: the table, the JSON, and what it says where there is no kernel module."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cowcloop.bench import reading
from support import cloop
from support.programs import cowcloop, refused

BLOCK = 64 << 10


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(cloop.sample(5 * BLOCK, BLOCK), BLOCK))
    return path


def test_json_has_every_work_and_run(image: Path) -> None:
    document = json.loads(cowcloop("bench", image, "--runs", "2", "--json").stdout)
    assert document["size"] == 5 * BLOCK
    works = {(item["work"], item["way"]): item for item in document["figures"]}
    assert ("random 4 KiB, cold", "in process") in works
    assert {work for work, _ in works} == {"sequential", "random 4 KiB, cold", "extract"}
    for item in works.values():
        assert len(item["values"]) == 2
        assert 0 < item["min"] <= item["median"] <= item["max"]


@pytest.mark.skipif(os.path.exists("/dev/cloop0"), reason="the kernel module is here")
def test_the_table_says_that_there_is_no_kernel_module(image: Path) -> None:
    table = cowcloop("bench", image, "--runs", "1").stdout.decode()
    assert "there is no /dev/cloop0" in table
    assert len([line for line in table.splitlines() if "MB/s" in line]) == 3


@pytest.mark.parametrize(
    "work", [reading.sequential, lambda read, size: reading.at_random(read, [0], size)]
)
def test_ctrl_c_in_a_read_is_ctrl_c(work: Callable[[reading.Reader, int], float]) -> None:
    """Its traceback holds a view of the buffer, which must not be what is complained of."""

    def interrupted(_buffer: memoryview, _offset: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(interrupted, 1 << 20)


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    refused("bench", tmp_path / "none", says="none")
