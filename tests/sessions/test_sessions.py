"""Sessions: each export name a device of its own, over one base."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from support import cloop, cowfile, nbdclient
from support.programs import cowcloop, one_line, program, refused, run
from support.server import Server, attach, listed, serving

UNIT = cowfile.UNIT
BLOCK = 4096
PLAIN = cloop.sample(64 * BLOCK, BLOCK)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "sessions"
    path.mkdir()
    return path


def _uri(server: Server, name: str) -> str:
    scheme, _, rest = server.uri.partition("///")
    return f"{scheme}///{quote(name)}{rest}"


def test_fifty_sessions_write_at_once_and_see_their_own(image: Path, folder: Path) -> None:
    names = [f"pupil-{number:02}" for number in range(50)]
    expected: dict[str, bytearray] = {}
    failures: list[str] = []

    def work(name: str, uri: str) -> None:
        mine = bytearray(PLAIN)
        handle = nbdclient.connect(uri)
        for step in range(12):
            text = f"{name} {step};".encode() * 40
            at = (step * 17_001) % (len(PLAIN) - len(text))
            handle.pwrite(text, at)
            mine[at : at + len(text)] = text
            if handle.pread(len(text), at) != text:
                failures.append(f"{name} at {at}")
        if nbdclient.read_all(handle) != mine:
            failures.append(name)
        expected[name] = mine
        handle.shutdown()

    with serving(image, "--sessions", folder) as server:
        threads = [threading.Thread(target=work, args=(n, _uri(server, n))) for n in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        base = nbdclient.connect(server.uri)
        assert base.is_read_only()
        assert nbdclient.read_all(base) == PLAIN
        base.shutdown()
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.cow" for name in names]
    for name, device in expected.items():
        path = folder / f"{name}.cow"
        assert cowfile.original_refuses(path, PLAIN) is None
        assert cowfile.merged(PLAIN, cowfile.parse(path).blocks) == device


def test_a_cowfile_is_made_by_the_first_write(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder) as server:
        handle = nbdclient.connect(_uri(server, "anna"))
        assert nbdclient.read_all(handle) == PLAIN
        assert list(folder.iterdir()) == []
        handle.pwrite(b"!", 5)
        assert [path.name for path in folder.iterdir()] == ["anna.cow"]
        handle.shutdown()
    # The next day.
    with serving(image, "--sessions", folder) as server:
        handle = nbdclient.connect(_uri(server, "anna"))
        assert handle.pread(1, 5) == b"!"
        handle.shutdown()
        handle = nbdclient.connect(_uri(server, "ben"))
        assert handle.pread(1, 5) == PLAIN[5:6]
        handle.shutdown()


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/b",
        ".hidden",
        "..",
        ".",
        "x" * 201,
        "x" * 4096,
        "a b",
        "n\u00e4me",
        "\udcff",
        "a\nb",
    ],
)
def test_hostile_names_are_refused(image: Path, folder: Path, name: str) -> None:
    nbd = nbdclient.module()
    with serving(image, "--sessions", folder, quiet=False) as server:
        handle = nbd.NBD()
        with pytest.raises((nbd.Error, UnicodeEncodeError)):  # noqa: PT012
            handle.set_export_name(name)
            handle.connect_unix(str(server.socket))
            handle.pwrite(b"x", 0)
        good = nbdclient.connect(_uri(server, "x" * 200))
        good.pwrite(b"x", 0)
        good.shutdown()
    assert [path.name for path in folder.iterdir()] == ["x" * 200 + ".cow"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["i.img", "sessions"]


def test_there_are_no_more_sessions_than_allowed(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder, "--max-sessions", "2", quiet=False) as server:
        for name in ("a", "b"):
            handle = nbdclient.connect(_uri(server, name))
            handle.pwrite(b"x", 0)
            handle.shutdown()
        with pytest.raises(nbdclient.module().Error):  # noqa: PT012
            handle = nbdclient.connect(_uri(server, "c"))
            handle.pwrite(b"x", 0)
        # Those that are there go on.
        handle = nbdclient.connect(_uri(server, "a"))
        handle.pwrite(b"y", 1)
        handle.shutdown()
    assert sorted(path.name for path in folder.iterdir()) == ["a.cow", "b.cow"]


def test_a_session_has_no_more_space_than_its_quota(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder, "--session-quota", "64K", quiet=False) as server:
        handle = nbdclient.connect(_uri(server, "greedy"))
        with pytest.raises(nbdclient.module().Error) as caught:  # noqa: PT012
            for at in range(0, len(PLAIN), BLOCK):
                handle.pwrite(b"g" * BLOCK, at)
        assert caught.value.errno == "ENOSPC"
        assert handle.pread(BLOCK, 0) == b"g" * BLOCK
        other = nbdclient.connect(_uri(server, "modest"))
        other.pwrite(b"m" * BLOCK, 0)
        other.shutdown()
        handle.shutdown()
    for name in ("greedy", "modest"):
        assert cowfile.original_refuses(folder / f"{name}.cow", PLAIN) is None


def test_nbdinfo_and_list_show_them(image: Path, folder: Path) -> None:
    uri = attach(image, "--sessions", folder)
    head, _, rest = uri.partition("///")
    handle = nbdclient.connect(f"{head}///anna{rest}")
    handle.pwrite(b"x" * 2000, 0)
    shown = json.loads(run(program("nbdinfo", "libnbd-bin"), "--list", "--json", uri).stdout)
    assert {"", "anna"} <= {export["export-name"] for export in shown["exports"]}
    (device,) = listed()
    (anna,) = [session for session in device["sessions"] if session["name"] == "anna"]
    assert anna["path"] == str(folder / "anna.cow")
    assert anna["connections"] == 1
    assert anna["blocks_used"] == 2
    assert "anna.cow" in cowcloop("list").stdout.decode()
    handle.shutdown()
    cowcloop("detach", uri)


def test_a_device_without_a_session_yet(image: Path, folder: Path) -> None:
    """It is not read-only: a session can be written."""
    with serving(image, "--sessions", folder) as server:
        assert b"read-only" not in cowcloop("list").stdout
        cowcloop("suspend", server.uri)
        assert b"  suspended  " in cowcloop("list").stdout
        cowcloop("resume", server.uri)


def test_a_session_in_use_elsewhere_is_refused(image: Path, folder: Path) -> None:
    cow = folder / "anna.cow"
    with (
        serving(image, cow),
        serving(image, "--sessions", folder, quiet=False) as server,
        pytest.raises(nbdclient.module().Error),
    ):
        nbdclient.connect(_uri(server, "anna")).pwrite(b"x", 0)


def test_snapshot_and_reopen_of_one_session(image: Path, folder: Path, tmp_path: Path) -> None:
    copy, again = tmp_path / "copy.cow", tmp_path / "again.cow"
    with serving(image, "--sessions", folder, quiet=False) as server:
        anna, ben = (nbdclient.connect(_uri(server, name)) for name in ("anna", "ben"))
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


def test_reopen_read_only(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    with serving(image, cow, quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"kept", 0)
        assert cowfile.original_refuses(cow, PLAIN) is not None
        cowcloop("reopen", "--read-only", server.uri)
        assert cowfile.original_refuses(cow, PLAIN) is None
        with pytest.raises(nbdclient.module().Error):
            handle.pwrite(b"lost", 0)
        assert handle.pread(4, 0) == b"kept"
        handle.shutdown()


def test_suspend_and_resume_with_the_medium_changed(image: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    with serving(image, tmp_path / "c", "--cache", "64K", quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        assert handle.pread(4, 0) == PLAIN[:4]
        cowcloop("suspend", server.uri)
        assert b"  clean, suspended  " in cowcloop("list").stdout
        image.unlink()
        refused("resume", server.uri, says="i.img")
        image.write_bytes(cloop.build(b"\x55" * len(PLAIN), BLOCK))
        refused("resume", server.uri, says="i.img")
        image.write_bytes(data)
        cowcloop("resume", server.uri)
        assert b"suspended" not in cowcloop("list").stdout
        assert nbdclient.read_all(handle) == PLAIN
        handle.shutdown()


def test_wrong_arguments(image: Path, folder: Path, tmp_path: Path) -> None:
    for words in (
        (image, "--sessions"),
        (image, tmp_path / "c", "--sessions", folder),
        (image, "--max-sessions", "3"),
        (image, "--session-quota", "1M"),
        (image, "--sessions", folder, "--max-sessions", "0"),
    ):
        for command in ("serve", "attach"):
            done = cowcloop(command, *words, expect=2)
            assert len(done.stderr.splitlines()) == 1
    refused("serve", image, "--sessions", image, says="i.img")
    refused("suspend", "nobody", says="nobody")
    refused("resume", "nobody", says="nobody")
    refused("reopen", "--read-only", "nobody", says="nobody")
    for line in ("suspend", "resume", "reopen nobody", "reopen --read-only"):
        assert len(cowcloop(*line.split(), expect=2).stderr.splitlines()) == 1


def test_print_command(image: Path, tmp_path: Path) -> None:
    done = cowcloop(
        "serve", "--print-command", image, tmp_path / "my c", "--", "--exit-with-parent"
    )
    (line,) = done.stdout.decode().splitlines()
    assert "nbdkit" in line.split()[0]
    assert f"image={image}" in line
    assert f"'cow={tmp_path / 'my c'}'" in line
    assert line.endswith(" --exit-with-parent")
    assert not (tmp_path / "my c").exists()


def test_a_uri_with_a_session_s_name(image: Path, folder: Path, tmp_path: Path) -> None:
    """It means that session alone: what concerns all of them is refused."""
    with serving(image, "--sessions", folder) as server:
        handles = {name: nbdclient.connect(_uri(server, name)) for name in ("anna", "bert")}
        for name, handle in handles.items():
            handle.pwrite(name.encode() * UNIT, 0)
            handle.flush()
        anna = _uri(server, "anna").replace("///anna", "///%61nna")
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
