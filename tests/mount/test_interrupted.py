"""Signals while something is mounted, attached, or written to a mount: nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.interrupted import stopped_half_way
from support.mounts import mkfs, require_fuse2fs_that_writes
from support.programs import PATIENCE, cowcloop, cowcloop_path, one_line, program, run
from support.server import wait_until

pytestmark = pytest.mark.usefixtures("fuse", "loop")


@pytest.mark.parametrize("command", ["mount", "attach"])
def test_ctrl_c_leaves_nothing(
    command: str,
    chicken: Path,
    place: Path,
    tmp_path: Path,
    runtime: Path,
    left: Callable[[], list[str]],
) -> None:
    """At any moment: all of it, or nothing at all."""
    arguments = [chicken, tmp_path / "c", *([place] if command == "mount" else [])]
    codes = []
    for step in range(24):
        process = subprocess.Popen(
            [cowcloop_path(), command, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        wait_until(lambda: any((runtime / "cowcloop").glob("*")), "the registry's entry")
        time.sleep(step * 0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        error = process.communicate(timeout=PATIENCE)[1].decode()
        codes.append(process.returncode)
        if process.returncode == 0:
            cowcloop("umount", place) if command == "mount" else cowcloop("detach", "--all")
        else:
            assert process.returncode == 130, error
            one_line(error, "interrupted")
        assert left() == [], f"step {step}, exit code {process.returncode}"
    # attach has done its work nearly at once.
    assert 130 in codes or command == "attach"


@pytest.mark.parametrize("how", ["INT", "TERM", "HUP", "QUIT"])
@pytest.mark.parametrize("command", ["mount", "attach"])
def test_a_signal_leaves_nothing(
    command: str,
    how: str,
    chicken: Path,
    place: Path,
    tmp_path: Path,
    left: Callable[[], list[str]],
) -> None:
    """It comes while a program that the command has started works for it."""
    name, package = ("blkid", "util-linux") if command == "mount" else ("nbdkit", "nbdkit")
    fake, real = tmp_path / name, program(name, package)
    fake.write_text(f'#!/bin/sh\nkill -{how} $PPID\nexec {real} "$@"\n')
    fake.chmod(0o755)
    arguments: list[Path] = [chicken, tmp_path / "c", *([place] if command == "mount" else [])]
    number = signal.Signals[f"SIG{how}"]
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = cowcloop(command, *arguments, env=env, expect=128 + number)
    one_line(done.stderr.decode(), "interrupted" if how == "INT" else f"interrupted by SIG{how}")
    assert left() == []
    # One that is ignored is none.
    script = f"trap '' {how}; \"$@\""
    run("bash", "-c", script, "bash", cowcloop_path(), command, *arguments, env=env)
    cowcloop("umount", place) if command == "mount" else cowcloop("detach", "--all")
    assert left() == []


def test_output_where_every_file_has_a_name(place: Path, tmp_path: Path) -> None:
    """fuse2fs has no files without names: there an output has a passing one until it is whole."""
    require_fuse2fs_that_writes()
    disk = mkfs(tmp_path / "disk", "ext2", kib=98304)
    cowcloop("mount", "--via", "fuse2fs", disk, tmp_path / "c", place)
    try:
        with pytest.raises(OSError, match=r"not supported|Is a directory"):
            os.open(place, os.O_TMPFILE | os.O_RDWR)
        before = sorted(os.listdir(place))
        out = place / "out"
        # Long enough to be stopped half way.
        image, whole = tmp_path / "image", random.Random(4).randbytes(48 << 20)
        image.write_bytes(whole)
        for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            code = stopped_half_way("extract", image, out, folder=place, how=how)
            assert code == 128 + how
            # The signal may have come when all was done but the command's own end.
            if out.exists():
                assert out.read_bytes() == whole
                out.unlink()
            # FUSE keeps a removed file, hidden, until its close has come through.
            wait_until(lambda: sorted(os.listdir(place)) == before, "nothing left")
        cowcloop("extract", image, out)
        assert out.read_bytes() == whole
        assert sorted(os.listdir(place)) == sorted([*before, "out"])
    finally:
        cowcloop("umount", place)
