"""session list, reset, snapshot and commit; and sessions that begin anew with their machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import nbdclient
from support.programs import cowcloop, one_line, refused
from support.server import serving, wait_until
from support.sessions import BLOCK, PLAIN, join


def test_what_the_sessions_are(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder) as server:
        assert cowcloop("session", "list", server.uri).stdout == b""
        anna = join(server, "anna")
        anna.pwrite(b"a" * 2048, 0)
        join(server, "bert").shutdown()
        ben = join(server, "ben")
        shown = cowcloop("session", "list", server.uri).stdout.decode().splitlines()
        assert shown[0].split() == ["SESSION", "CLIENTS", "STATE", "CHANGED"]
        assert [line.split()[:3] for line in shown[1:]] == [
            ["anna", "1", "dirty"],
            ["ben", "1", "not"],
        ]
        (first, _) = json.loads(cowcloop("session", "list", "--json", server.uri).stdout)
        assert (first["name"], first["blocks_used"], first["connections"]) == ("anna", 2, 1)
        anna.shutdown()
        ben.shutdown()


def test_reset_while_others_go_on(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder, quiet=False) as server:
        anna, bert = join(server, "anna"), join(server, "bert")
        for handle in (anna, bert):
            handle.pwrite(b"w" * 4096, 0)
        done = cowcloop("session", "reset", server.uri, "anna", expect=1)
        one_line(done.stderr.decode(), ("anna", "1 connections", "--force"))
        assert anna.pread(4, 0) == b"wwww"
        cowcloop("session", "reset", server.uri, "anna", "--force")
        with pytest.raises(nbdclient.module().Error):
            anna.pread(4, 0)
        again = join(server, "anna")
        assert nbdclient.read_all(again) == PLAIN
        again.pwrite(b"x", 5)
        again.shutdown()
        assert bert.pread(4096, 0) == b"w" * 4096
        bert.pwrite(b"more", 9000)
        bert.shutdown()
        cowcloop("session", "reset", server.uri, "--all", "--force")
        assert list(folder.iterdir()) == []
        done = cowcloop("session", "reset", server.uri, "nobody", "../x", expect=1)
        assert len(done.stderr.splitlines()) == 2


def test_snapshot_and_commit_while_it_is_written(image: Path, folder: Path, tmp_path: Path) -> None:
    copy, new = tmp_path / "copy.cow", tmp_path / "new.cloop"
    with serving(image, "--sessions", folder) as server:
        anna, bert = join(server, "anna"), join(server, "bert")
        anna.pwrite(b"anna", 100)
        bert.pwrite(b"bert", 100)
        cowcloop("session", "snapshot", server.uri, "anna", copy)
        refused("session", "snapshot", server.uri, "anna", copy, says="exists")
        done = cowcloop("session", "commit", server.uri, "anna", new, "--json")
        assert json.loads(done.stdout)["copied_blocks"] >= len(PLAIN) // BLOCK - 2
        # Nothing of it stays behind, and the session goes on.
        assert sorted(path.name for path in folder.iterdir()) == ["anna.cow", "bert.cow"]
        anna.pwrite(b"more", 104)
        assert anna.pread(8, 100) == b"annamore"
        for handle in (anna, bert):
            handle.shutdown()
        refused("session", "commit", server.uri, "nobody", tmp_path / "x", says="nobody")
        refused("session", "commit", server.uri, "anna", image, says="input")
    want = PLAIN[:100] + b"anna" + PLAIN[104:]
    assert cowcloop("extract", image, copy, "-").stdout == want
    assert cowcloop("extract", new, "-").stdout == want


def test_what_has_no_sessions(image: Path, tmp_path: Path) -> None:
    with serving(image, tmp_path / "a.cow") as server:
        for words in (["list"], ["reset", "a"], ["snapshot", "a", "b"], ["commit", "a", "b"]):
            command, *rest = words
            refused("session", command, server.uri, *rest, says="--sessions")
    refused("session", "list", "nobody", says="nobody")
    for line in ("session reset x", "session reset x a --all", "session snapshot x"):
        assert len(cowcloop(*line.split(), expect=2).stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [["--reset-on-boot"], ["--sessions", "s", "--boot-gap", "5"], ["--boot-gap", "5"]],
    ids=" ".join,
)
def test_options_that_need_others(image: Path, tmp_path: Path, options: list[str]) -> None:
    done = cowcloop("serve", image, *options, expect=2)
    one_line(done.stderr.decode(), "needs")


def test_a_machine_that_boots_finds_the_image_as_it_is(image: Path, folder: Path) -> None:
    options = ("--sessions", folder, "--reset-on-boot")
    with serving(image, *options, quiet=False) as server:
        first = join(server, "pc17@boot-1")
        first.pwrite(b"one", 0)
        first.shutdown()
        # The network went away within the boot.
        again = join(server, "pc17@boot-1")
        assert again.pread(3, 0) == b"one"
        # The power went: the server still has the connection of the boot before.
        booted = join(server, "pc17@boot-2")
        assert nbdclient.read_all(booted) == PLAIN
        with pytest.raises(nbdclient.module().Error):
            again.pread(3, 0)
        booted.pwrite(b"two", 0)
        booted.shutdown()
    # Not so when the server was away.
    with serving(image, *options) as server:
        handle = join(server, "pc17@boot-2")
        assert handle.pread(3, 0) == b"two"
        handle.shutdown()
        handle = join(server, "pc17@boot-3")
        assert handle.pread(3, 0) == PLAIN[:3]
        handle.shutdown()
    assert not (folder / "pc17.cow").exists()


def test_a_machine_that_does_not_name_its_boot(image: Path, folder: Path) -> None:
    for gap, kept in (("0", False), ("1000000", True)):
        with serving(image, "--sessions", folder, "--reset-on-boot", "--boot-gap", gap) as server:
            handle = join(server, "pc")
            handle.pwrite(b"w" * 4096, 0)
            handle.shutdown()

            def closed() -> bool:
                (found,) = json.loads(cowcloop("session", "list", "--json", server.uri).stdout)
                return bool(found["connections"] == 0)

            wait_until(closed, "the client's end")
            handle = join(server, "pc")
            assert handle.pread(4, 0) == (b"wwww" if kept else PLAIN[:4])
            handle.shutdown()
