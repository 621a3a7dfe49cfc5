"""A served cowfile's name: nothing of ours takes it away, and what others do is told."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from pathlib import Path

import cowcloop as package
import pytest
from cowcloop.server import ServerError
from support import cloop, nbdclient
from support.programs import cowcloop, mannered, one_line, refused
from support.server import Server, attach, listed, serving, socket_of

PLAIN = cloop.PLAIN


@pytest.mark.parametrize(
    "command",
    [
        ("extract", "{image}", "{cow}"),
        ("create", "{raw}", "{cow}"),
        ("commit", "{image}", "{other}", "{cow}"),
        ("cow", "pack", "{other}", "{cow}"),
        ("cow", "unpack", "{packed}", "{cow}"),
        ("cow", "snapshot", "{other}", "{cow}"),
        ("map", "{image}", "--svg", "{cow}"),
        ("map", "{image}", "--png", "{cow}"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("through", ["name", "link"])
def test_no_output_replaces_a_cowfile_in_use(
    image: Path, tmp_path: Path, command: tuple[str, ...], through: str
) -> None:
    cow, link = tmp_path / "c", tmp_path / "link"
    names = {name: tmp_path / name for name in ("raw", "other", "packed")}
    names["raw"].write_bytes(PLAIN)
    cowcloop("detach", attach(image, names["other"]))
    cowcloop("cow", "pack", names["other"], names["packed"])
    link.symlink_to(cow)
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"kept", 0)
        named = cow if through == "name" else link
        words = [word.format(image=image, cow=named, **names) for word in command]
        line = refused(*words)
        assert "in use" in line or "exists" in line, line
        handle.pwrite(b"kept", 4096)
        handle.flush()
        handle.shutdown()
    assert cowcloop("extract", image, cow, "-").stdout[4096:4100] == b"kept"


def _take_away(cow: Path, how: str) -> None:
    if how == "replaced":
        other = cow.with_name("other")
        other.write_bytes(b"something else")
        other.rename(cow)
    else:
        cow.unlink()


def _attached(image: Path, cow: Path, data: bytes) -> str:
    """The URI of a device that has been written to, by a client that has left."""
    uri = attach(image, cow)
    handle = nbdclient.connect(uri)
    handle.pwrite(data, 0)
    handle.shutdown()
    return uri


taken_away = pytest.mark.parametrize("how", ["removed", "replaced"])


@taken_away
def test_detach_does_not_lose_what_can_be_saved(image: Path, tmp_path: Path, how: str) -> None:
    cow, saved = tmp_path / "c", tmp_path / "saved"
    uri = attach(image, cow)
    handle = nbdclient.connect(uri)
    handle.pwrite(b"saved", 0)
    handle.flush()
    _take_away(cow, how)
    assert listed()[0]["cowfiles"][0]["state"] == "removed"
    refused("sync", uri, says=("c: ", "removed or replaced", "cow snapshot"))
    refused("detach", uri, says=("c: ", "removed or replaced", "cow snapshot", "--discard"))
    handle.pwrite(b"still", 10)
    handle.shutdown()
    cowcloop("cow", "snapshot", uri, saved)
    assert cowcloop("detach", "--discard", uri).stderr == b""
    assert listed() == []
    assert cowcloop("extract", image, saved, "-").stdout[:15] == b"saved" + PLAIN[5:10] + b"still"


@taken_away
def test_serve_says_that_it_lost_its_cowfile(image: Path, tmp_path: Path, how: str) -> None:
    cow = tmp_path / "c"
    server = Server(image, cow)
    handle = nbdclient.connect(server.uri)
    handle.pwrite(b"lost", 0)
    _take_away(cow, how)
    handle.flush()
    handle.shutdown()
    assert server.stop(signal.SIGINT) == 1
    mannered(server.errors)
    warning, error = server.errors.splitlines()
    assert one_line(f"{warning}\n", ("c: ", "warning", "removed or replaced", "cow snapshot"))
    assert one_line(f"{error}\n", ("c: ", "removed or replaced", "lost"))


def test_a_session_whose_cowfile_is_gone(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    folder.mkdir()
    uri = attach(image, "--sessions", folder)
    socket = uri.partition("?")[2]
    handle = nbdclient.connect(f"nbd+unix:///ann?{socket}")
    handle.pwrite(b"ann's", 0)
    (folder / "ann.cow").unlink()
    refused("sync", uri, says=("ann.cow: ", "removed or replaced"))
    line = refused("detach", uri, says=("ann.cow: ", "removed or replaced", "--session ann"))
    assert "--discard" in line
    saved = tmp_path / "saved"
    cowcloop("cow", "snapshot", "--session", "ann", uri, saved)
    handle.shutdown()
    cowcloop("detach", uri)
    assert cowcloop("extract", image, saved, "-").stdout[:5] == b"ann's"


def test_a_cowfile_that_goes_after_the_last_flush_is_told_too(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    with package.serve(image, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"lost", 0)
        handle.flush()
        handle.shutdown()
        cow.unlink()
        with pytest.raises(ServerError, match="removed or replaced"):
            server.close()


def test_reopen_read_only_keeps_what_can_be_saved(image: Path, tmp_path: Path) -> None:
    cow, saved = tmp_path / "c", tmp_path / "saved"
    uri = attach(image, cow)
    handle = nbdclient.connect(uri)
    handle.pwrite(b"saved", 0)
    cow.unlink()
    refused("reopen", "--read-only", uri, says=("c: ", "removed or replaced"))
    assert listed()[0]["cowfiles"][0]["state"] == "removed"
    handle.pwrite(b"still", 5)
    handle.shutdown()
    cowcloop("cow", "snapshot", uri, saved)
    cowcloop("detach", "--discard", uri)
    assert cowcloop("extract", image, saved, "-").stdout[:10] == b"savedstill"


def test_what_is_only_read_may_go(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    cowcloop("detach", attach(image, cow))
    uri = attach("--read-only", image, cow)
    disk = package.open(image, cow, read_only=True)
    cow.unlink()
    cowcloop("sync", uri)
    cowcloop("detach", uri)
    assert disk.pread(len(PLAIN), 0) == PLAIN
    disk.close()


def test_detach_waits_for_no_word_of_a_crowded_server(image: Path, tmp_path: Path) -> None:
    """A command that gets no answer must not take the cowfile for kept."""
    cow = tmp_path / "c"
    uri = _attached(image, cow, b"kept")
    channel = socket_of(uri).with_name("control.sock")
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(16)]
    for each in crowd:
        each.connect(str(channel))
    refused("detach", uri, says="--discard")
    for each in crowd:
        each.close()
    cowcloop("detach", uri)
    assert cowcloop("extract", image, cow, "-").stdout[:4] == b"kept"


def test_other_files_are_replaced_though_they_are_locked(image: Path, tmp_path: Path) -> None:
    """As by flock(1), which keeps two of a job from running at once."""
    out = tmp_path / "out"
    out.write_bytes(b"old")
    with out.open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        cowcloop("extract", image, out)
        cowcloop("map", image, "--svg", out)
    assert out.read_bytes().startswith(b"<")


def test_a_cowfile_that_was_moved_is_still_there(image: Path, tmp_path: Path) -> None:
    cow, moved = tmp_path / "c", tmp_path / "moved"
    uri = _attached(image, cow, b"moved")
    cow.rename(moved)
    cowcloop("sync", uri)
    cowcloop("detach", uri)
    assert cowcloop("extract", image, moved, "-").stdout[:5] == b"moved"


def test_closing_a_disk_whose_cowfile_is_gone(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    disk = package.open(image, cow)
    disk.pwrite(b"lost", 0)
    os.unlink(cow)
    with pytest.raises(package.DamagedError, match="removed or replaced"):
        disk.close()
    assert disk.closed
