"""Threads that do everything to one disk at once; on a free-threaded Python, truly at once."""

from __future__ import annotations

import random
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path

import cowcloop
import pytest
from support import cloop

BLOCK = 4096
SIZE = 64 * BLOCK
HALF = SIZE // 2
PLAIN = cloop.sample(SIZE, BLOCK)
THREADS = 8


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="not a free-threaded Python"
)
def test_the_module_leaves_the_gil_off() -> None:
    assert not getattr(sys, "_is_gil_enabled")()  # noqa: B009 - not known before Python 3.13


@pytest.mark.parametrize("seed", range(20))
def test_everything_at_once_until_it_is_closed(tmp_path: Path, seed: int) -> None:
    """Reads of the lower half, writes to the upper one, and a close in the middle of it all."""
    image, cow = tmp_path / "i.img", tmp_path / "c"
    image.write_bytes(cloop.build(PLAIN, BLOCK))
    disk = cowcloop.open(image, cow, cache=2 * BLOCK)
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        dice = random.Random(seed * THREADS + number)
        buffer = bytearray(3000)
        mine = HALF + number * 5 * 1024
        steps: list[Callable[[], object]] = [
            lambda: _same(disk.pread(2000, at), at),
            lambda: _same(buffer[: disk.pread_into(buffer, at)], at),
            lambda: disk.pwrite(bytes([number]) * 700, mine),
            lambda: disk.trim(mine, 2048),
            lambda: (disk.seek(at), disk.tell(), disk.read(500), disk.readinto(buffer)),
            lambda: (disk.extents(), disk.status(), repr(disk)),
            disk.flush,
        ]
        try:
            for turn in range(60):
                at = dice.randrange(HALF - len(buffer))
                dice.choice(steps)()
                if (number, turn) == (0, 40):
                    disk.close()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The first to look finds it closed in any case.
    assert wrong
    for error in wrong:
        # A write that the close overtakes is refused by the cowfile, as ReadOnlyError.
        assert isinstance(error, ValueError)
        assert "closed" in str(error)
    assert cowcloop.cow_info(cow).state == "clean"
    with cowcloop.open(image, cow) as again:
        _same(again.pread(HALF, 0), 0)


def _same(found: bytes | bytearray, at: int) -> None:
    assert found == PLAIN[at : at + len(found)]
