"""Commands about the sessions of a served image, and about one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import cowfile, nbdclient
from support.programs import cowcloop, one_line, program, refused, run
from support.server import listed, serving
from support.sessions import PLAIN, join, session_uri


def test_sessions_are_listed(image: Path, folder: Path) -> None:
    (folder / "old.cow").write_bytes(cowfile.build(PLAIN, {1: b"o" * 1024}))
    (folder / "not a session.txt").write_text("")
    with serving(image, "--sessions", folder, quiet=False) as server:
        handle = join(server, "new")
        handle.pwrite(b"n", 0)
        shown = run(program("nbdinfo", "libnbd-bin"), "--list", "--json", server.uri).stdout
        names = {export["export-name"] for export in json.loads(shown)["exports"]}
        assert names == {"", "old", "new"}
        (device,) = listed()
        (new,) = [session for session in device["sessions"] if session["name"] == "new"]
        assert new["path"] == str(folder / "new.cow")
        assert (new["connections"], new["blocks_used"]) == (1, 1)
        assert "new.cow" in cowcloop("list").stdout.decode()
        handle.shutdown()


def test_a_device_without_a_session_yet(image: Path, folder: Path) -> None:
    """It is not read-only: a session can be written."""
    with serving(image, "--sessions", folder) as server:
        assert b"read-only" not in cowcloop("list").stdout
        cowcloop("suspend", server.uri)
        assert b"  suspended  " in cowcloop("list").stdout
        cowcloop("resume", server.uri)


def test_snapshot_and_reopen_of_one_session(image: Path, folder: Path, tmp_path: Path) -> None:
    copy, again = tmp_path / "copy.cow", tmp_path / "again.cow"
    with serving(image, "--sessions", folder, quiet=False) as server:
        anna, ben = (join(server, name) for name in ("anna", "ben"))
        anna.pwrite(b"anna", 0)
        ben.pwrite(b"ben!", 0)
        refused("cow", "snapshot", server.uri, copy, says="session")
        cowcloop("cow", "snapshot", server.uri, copy, "--session", "anna")
        cowcloop("cow", "snapshot", folder / "ben.cow", again)
        cowcloop("reopen", "--read-only", server.uri, "--session", "anna")
        assert cowfile.original_refuses(folder / "anna.cow", PLAIN) is None
        with pytest.raises(nbdclient.module().Error):
            anna.pwrite(b"more", 0)
        ben.pwrite(b"more", 4)
        assert anna.pread(4, 0) == b"anna"
        anna.shutdown()
        ben.shutdown()
    assert cowcloop("extract", image, copy, "-").stdout[:4] == b"anna"
    assert cowcloop("extract", image, again, "-").stdout[:8] == b"ben!" + PLAIN[4:8]


def test_a_uri_with_a_session_s_name(image: Path, folder: Path, tmp_path: Path) -> None:
    """It means that session alone: what concerns all of them is refused."""
    with serving(image, "--sessions", folder) as server:
        handles = {name: join(server, name) for name in ("anna", "bert")}
        for name, handle in handles.items():
            handle.pwrite(name.encode() * cowfile.UNIT, 0)
            handle.flush()
        anna = session_uri(server, "anna").replace("///anna", "///%61nna")
        for command in ("detach", "sync", "suspend", "resume"):
            refused(command, anna, says=("session anna", "leave the name out"))
        cowcloop("sync", server.uri)

        cowcloop("cow", "snapshot", anna, tmp_path / "one")
        assert cowcloop("extract", image, tmp_path / "one", "-").stdout.startswith(b"anna")
        cowcloop("cow", "snapshot", anna, tmp_path / "two", "--session", "anna")
        cowcloop("reopen", "--read-only", anna)
        (device,) = listed()
        assert {session["name"]: session["state"] for session in device["sessions"]} == {
            "anna": "read-only",
            "bert": "dirty",
        }
        for arguments in (
            ("cow", "snapshot", anna, tmp_path / "three"),
            ("cow", "snapshot", folder / "anna.cow", tmp_path / "three"),
            ("reopen", "--read-only", anna),
        ):
            done = cowcloop(*arguments, "--session", "bert", expect=2)
            one_line(done.stderr.decode(), ("--session bert", "anna"))
        assert not (tmp_path / "three").exists()
        for handle in handles.values():
            handle.shutdown()
