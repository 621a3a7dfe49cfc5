"""recover: another server in the place of a mount's, by hand and by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mounts import DONE
from support.programs import cowcloop, refused
from support.server import alive, listed, wait_until

pytestmark = pytest.mark.usefixtures("fuse", "loop", "sends_again")


@pytest.mark.parametrize("writable", [True, False])
def test_a_mount_goes_on_with_another_server(
    writable: bool, chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    cows = [tmp_path / "c"] if writable else []
    cowcloop("mount", "--via", "fuse", chicken, *cows, place)
    if writable:
        (place / "before").write_text("the first server")
    first = listed()[0]
    assert first["restarts"] == 0
    cowcloop("recover", place)
    second = listed()[0]
    assert (second["restarts"], second["supervisor"]) == (1, first["supervisor"])
    assert second["pid"] != first["pid"]

    os.kill(second["pid"], signal.SIGKILL)
    wait_until(lambda: listed()[0].get("restarts") == 2, "the third server")
    assert b"recovered 2 times" in cowcloop("list").stdout
    assert list(place.iterdir()) != []
    if writable:
        (place / "after").write_text((place / "before").read_text())
    assert (DONE in cowcloop("umount", place).stderr.decode()) is writable
    assert left() == []
    if writable:
        cowcloop("mount", chicken, *cows, place)
        assert (place / "after").read_text() == "the first server"
        cowcloop("umount", place)


def test_a_server_without_a_supervisor_is_left_alone(chicken: Path, tmp_path: Path) -> None:
    uri = cowcloop("attach", chicken, tmp_path / "c").stdout.decode().strip()
    refused("recover", uri, says=("no supervisor", "attach it again"))
    assert "error" not in listed()[0]
    cowcloop("detach", uri)


def test_a_stopped_server_is_replaced(
    chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    """It answers nothing, and has not ended either."""
    cowcloop("mount", "--via", "fuse", chicken, tmp_path / "c", place)
    (place / "before").write_text("the first server")
    first = listed()[0]
    os.kill(first["pid"], signal.SIGSTOP)
    done = cowcloop("recover", place)
    # Nothing waits for it to go on.
    assert b"kill -CONT" not in done.stderr
    second = listed()[0]
    assert (second["restarts"], second["supervisor"]) == (1, first["supervisor"])
    assert second["pid"] != first["pid"]
    assert not alive(first["pid"])
    (place / "after").write_text((place / "before").read_text())
    assert DONE in cowcloop("umount", place).stderr.decode()
    assert left() == []


def test_what_is_in_a_servers_memory_alone_is_not_thrown_away(chicken: Path, place: Path) -> None:
    cowcloop("mount", "--via", "fuse", chicken, ":memory:", place)
    (place / "kept").write_text("in memory")
    first = listed()[0]["pid"]
    refused("recover", place, says=("in the memory of the server", "nothing was done"))
    assert listed()[0]["pid"] == first
    assert (place / "kept").read_text() == "in memory"
    cowcloop("umount", place)
