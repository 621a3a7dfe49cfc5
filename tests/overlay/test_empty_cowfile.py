"""An empty file given as COW: a new cowfile, as it is to the original driver."""

from __future__ import annotations

from pathlib import Path

import cowcloop as module
from support import cloop, cowfile, nbdclient
from support.programs import cowcloop, refused
from support.server import attach, serving


def _empty(tmp_path: Path) -> Path:
    cow = tmp_path / "e.cow"
    cow.touch(mode=0o640)
    return cow


def test_attach_and_serve_begin_a_cowfile_in_it(image: Path, tmp_path: Path) -> None:
    cow = _empty(tmp_path)
    inode = cow.stat().st_ino
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri)
        assert not handle.is_read_only()
        handle.pwrite(b"new", 5000)
        handle.shutdown()
    # The file stays the one that the user made, with its mode.
    assert (cow.stat().st_ino, cow.stat().st_mode & 0o777) == (inode, 0o640)
    assert cowfile.original_refuses(cow, cloop.PLAIN) is None
    cow.write_bytes(b"")
    cowcloop("detach", attach(image, cow))
    assert cowfile.original_refuses(cow, cloop.PLAIN) is None


def test_open_begins_a_cowfile_in_it(image: Path, tmp_path: Path) -> None:
    cow = _empty(tmp_path)
    with module.open(image, cow) as disk:
        disk.pwrite(b"new", 5000)
    assert cowfile.parse(cow).used == 1


def test_a_session_begins_in_it(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    folder.mkdir()
    (folder / "anna.cow").touch()
    with serving(image, "--sessions", folder) as server:
        handle = nbdclient.connect(server.uri.replace("nbd+unix:///", "nbd+unix:///anna"))
        handle.pwrite(b"new", 5000)
        handle.shutdown()
    assert cowfile.parse(folder / "anna.cow").used == 1


def test_where_none_is_made_it_is_said_what_it_is(image: Path, tmp_path: Path) -> None:
    cow = _empty(tmp_path)
    says = ("e.cow", "empty", "attach")
    refused("extract", image, cow, "-", says=says)
    refused("commit", image, cow, tmp_path / "new", says=says)
    refused("attach", "--read-only", image, cow, says=says)
    refused("cow", "repair", cow, says=says)
    refused("cow", "pack", cow, tmp_path / "new", says=says)
    upper = tmp_path / "upper.cow"
    refused("attach", image, cow, upper, says=says)
    assert cow.stat().st_size == 0
    assert not upper.exists()
