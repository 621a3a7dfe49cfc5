"""A system that gives no more threads: the work is done by those that there are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support import cloop, cowfile
from support.programs import cowcloop_path, program, run

BLOCK = 65536
PLAIN = random.Random(2).randbytes(3 << 20)
CHANGED = {5: b"c" * 1024}


@pytest.mark.parametrize("first", [1, 2, 3])
def test_work_goes_on_with_the_threads_that_there_are(tmp_path: Path, first: int) -> None:
    """From the `first` on that is asked for, none is given."""
    strace = program("strace", "strace")
    image, cow = tmp_path / "i", tmp_path / "c"
    image.write_bytes(cloop.build(PLAIN, BLOCK, level=1))
    cow.write_bytes(cowfile.build(PLAIN, CHANGED))
    (tmp_path / "raw").write_bytes(PLAIN)

    def limited(*words: Path | str) -> bytes:
        inject = f"inject=clone,clone3:error=EAGAIN:when={first}+"
        command = (strace, "-f", "-qq", "-o", "/dev/null", "-e", inject, cowcloop_path())
        done = run(*command, *words)
        assert b"Panic" not in done.stderr
        return done.stdout

    limited("extract", image, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == PLAIN
    limited("create", tmp_path / "raw", tmp_path / "new")
    limited("verify", tmp_path / "new")
    limited("commit", image, cow, tmp_path / "committed")
    device = limited("extract", tmp_path / "committed", "-")
    assert device == cowfile.merged(PLAIN, CHANGED)
    limited("map", image, cow)
    limited("cow", "pack", cow, tmp_path / "packed")
    limited("cow", "merge", "--yes", tmp_path / "raw", cow)
    assert (tmp_path / "raw").read_bytes() == device
