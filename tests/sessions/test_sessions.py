"""Sessions: the export name picks the cowfile; all share the base and nothing else."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from support import cowfile, nbdclient
from support.programs import cowcloop
from support.server import Server, attach, listed, serving, wait_until
from support.sessions import PLAIN, join


def test_a_session_is_made_by_its_first_write(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder) as server:
        looker = join(server, "anna")
        assert not looker.is_read_only()
        assert nbdclient.read_all(looker) == PLAIN
        looker.flush()
        assert list(folder.iterdir()) == []
        looker.pwrite(b"anna was here", 100)
        assert [path.name for path in folder.iterdir()] == ["anna.cow"]
        looker.shutdown()
    assert cowfile.original_refuses(folder / "anna.cow", PLAIN) is None
    assert (folder / "anna.cow").stat().st_mode & 0o777 == 0o600
    # It is an ordinary cowfile.
    assert cowcloop("extract", image, folder / "anna.cow", "-").stdout[100:113] == b"anna was here"


def test_the_empty_name_is_the_base(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder) as server:
        writer = join(server, "x")
        writer.pwrite(b"!" * 1000, 0)
        base = join(server, "")
        assert base.is_read_only()
        assert nbdclient.read_all(base) == PLAIN
        for handle in (writer, base):
            handle.shutdown()


def test_a_session_goes_on_tomorrow(image: Path, folder: Path) -> None:
    for day in range(3):
        with serving(image, "--sessions", folder) as server:
            handle = join(server, "diary.2026_a-b")
            assert handle.pread(day + 1, 0) == b"d" * day + PLAIN[day : day + 1]
            handle.pwrite(b"d", day)
            handle.shutdown()


def test_fifty_sessions_write_at_once_and_see_their_own(image: Path, folder: Path) -> None:
    names = [f"pupil-{number:02}" for number in range(50)]
    expected: dict[str, bytearray] = {}
    failures: list[str] = []

    def work(server: Server, name: str) -> None:
        mine = bytearray(PLAIN)
        handle = join(server, name)
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
        threads = [threading.Thread(target=work, args=(server, name)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        base = join(server, "")
        assert base.is_read_only()
        assert nbdclient.read_all(base) == PLAIN
        base.shutdown()
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.cow" for name in names]
    for name, device in expected.items():
        path = folder / f"{name}.cow"
        assert cowfile.original_refuses(path, PLAIN) is None
        assert cowfile.merged(PLAIN, cowfile.parse(path).blocks) == device


def test_two_clients_of_one_session_see_each_other(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder) as server:
        one, two = join(server, "both"), join(server, "both")
        one.pwrite(b"one", 0)
        two.pwrite(b"two", 3)
        assert one.pread(6, 0) == two.pread(6, 0) == b"onetwo"
        one.shutdown()
        two.flush()
        two.shutdown()


def test_an_idle_session_is_closed_cleanly(image: Path, folder: Path) -> None:
    """When its last client is gone the cowfile is whole, while the server lives on."""
    uri = attach(image, "--sessions", folder)
    handle = nbdclient.module().NBD()
    handle.set_export_name("idle")
    handle.connect_unix(str(listed()[0]["socket"]))
    handle.pwrite(b"z", 0)
    handle.shutdown()
    wait_until(
        lambda: cowfile.original_refuses(folder / "idle.cow", PLAIN) is None, "a clean close"
    )
    assert len(listed()) == 1
    cowcloop("detach", uri)


def test_the_end_of_the_server_closes_sessions_in_use(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder) as server:
        handles = [join(server, f"user{number}") for number in range(20)]
        for handle in handles:
            handle.pwrite(b"x", 5000)
        looker = join(server, "looker")
    for number in range(20):
        assert cowfile.original_refuses(folder / f"user{number}.cow", PLAIN) is None
    assert not (folder / "looker.cow").exists()
    del handles, looker


def test_a_killed_server_keeps_every_session(image: Path, folder: Path) -> None:
    server = Server(image, "--sessions", folder)
    handles = [join(server, f"s{number}") for number in range(8)]
    for number, handle in enumerate(handles):
        handle.pwrite(b"flushed %d" % number, 2000)
        handle.flush()
    os.kill(server.nbdkit_pid(), signal.SIGKILL)
    assert server.wait() == 1
    with serving(image, "--sessions", folder) as again:
        for number in range(8):
            handle = join(again, f"s{number}")
            assert handle.pread(9, 2000) == b"flushed %d" % number
            handle.shutdown()


def test_a_missing_directory_is_made(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    with serving(image, "--sessions", folder) as server:
        join(server, "a").pwrite(b"z", 0)
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "a.cow").exists()


def test_the_reads_of_the_base_are_those_of_a_session(image: Path, folder: Path) -> None:
    """Before its cowfile is made and afterwards; what lies in the cowfile is not one of them."""

    def read_of_base(name: str) -> int:
        (device,) = listed()
        (found,) = [one for one in device["sessions"] if one["name"] == name]
        count = found["base_read_bytes"]
        assert isinstance(count, int)
        return count

    with serving(image, "--sessions", folder) as server:
        anna, bert = join(server, "anna"), join(server, "bert")
        anna.pread(10_000, 0)
        assert (read_of_base("anna"), read_of_base("bert")) == (10_000, 0)
        anna.pwrite(bytes(4096), 0)
        anna.pread(4096, 0)
        assert read_of_base("anna") == 10_000
        anna.pread(2048, 3072)
        assert (read_of_base("anna"), read_of_base("bert")) == (11_024, 0)
        for handle in (anna, bert):
            handle.shutdown()
