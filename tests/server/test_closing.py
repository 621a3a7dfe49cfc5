"""A server's end is checked in the cowfile itself."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from cowcloop.server.closing import check_closed
from cowcloop.server.errors import ServerError
from support import cloop, cowfile

PLAIN = cloop.sample(40 * 1024, 4096)


def test_closed_cowfiles_and_none(tmp_path: Path) -> None:
    cow = tmp_path / "c"
    check_closed(None)
    check_closed(str(cow))
    cow.write_bytes(cowfile.build(PLAIN, {}))
    check_closed(str(cow))


def test_another_file_of_its_name(tmp_path: Path) -> None:
    cow = tmp_path / "c"
    cow.write_bytes(b"a cowfile was here, and has been moved")
    check_closed(str(cow))


def test_a_cowfile_left_open(tmp_path: Path) -> None:
    cow = tmp_path / "c"
    cow.write_bytes(cowfile.build(PLAIN, {}, flags=cowfile.DIRTY))
    with pytest.raises(ServerError, match="c was not closed cleanly"):
        check_closed(str(cow))
    # The program that has it open now answers for it.
    with cow.open("rb") as user:
        fcntl.flock(user, fcntl.LOCK_EX)
        check_closed(str(cow))
