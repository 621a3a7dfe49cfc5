"""Sessions: the export name picks the cowfile; everybody shares the base and nothing else."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import cloop, cowfile, nbdclient
from support.programs import cowcloop, program, refused, run
from support.server import Server, attach, listed, serving, wait_until

MIB = 1 << 20
SIZE = MIB
PLAIN = cloop.sample(SIZE, 4096, 13)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, 4096))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "sessions"
    path.mkdir()
    return path


def join(server: Server, name: str) -> Any:
    """A client of one session."""
    handle = nbdclient.module().NBD()
    handle.set_export_name(name)
    handle.connect_unix(str(server.socket))
    return handle


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


def test_two_clients_of_one_session_see_each_other(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder) as server:
        one, two = join(server, "both"), join(server, "both")
        one.pwrite(b"one", 0)
        two.pwrite(b"two", 3)
        assert one.pread(6, 0) == two.pread(6, 0) == b"onetwo"
        one.shutdown()
        two.flush()
        two.shutdown()


def test_fifty_sessions_are_apart(image: Path, folder: Path) -> None:
    """Each writes everywhere at once, and reads its own bytes and nobody else's."""

    def live(number: int) -> None:
        handle = join(server, f"s{number}")
        mine = (b"%02d" % number) * 1024
        for at in range(0, SIZE, 64 * 1024):
            handle.pwrite(mine, at + number * 10)
        handle.flush()
        for at in range(0, SIZE, 64 * 1024):
            start = at + number * 10
            assert handle.pread(len(mine), start) == mine
            assert handle.pread(number * 10 + 1, at)[:-1] == PLAIN[at:start]
        handle.shutdown()

    with serving(image, "--sessions", folder) as server:
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(live, range(50)))
        base = join(server, "")
        assert nbdclient.read_all(base) == PLAIN
        base.shutdown()
    assert len(list(folder.iterdir())) == 50
    for number in (0, 17, 49):
        blocks = cowfile.parse(folder / f"s{number}.cow").blocks
        want = bytearray(PLAIN)
        for at in range(0, SIZE, 64 * 1024):
            want[at + number * 10 : at + number * 10 + 2048] = (b"%02d" % number) * 1024
        assert cowfile.merged(PLAIN, blocks) == want


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
        assert "new" in {session["name"] for session in device["sessions"]}
        handle.shutdown()


HOSTILE = [
    "../x",
    "..",
    ".hidden",
    "a/b",
    "/etc/passwd",
    "a b",
    "x" * 201,
    "x" * 4000,
    "caf\u00e9",
    "a\nb",
    "%2e%2e",
    "$(id)",
    "-\\-",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_is_refused(image: Path, folder: Path, name: str) -> None:
    before = sorted(image.parent.rglob("*"))
    with serving(image, "--sessions", folder, quiet=False) as server:
        with pytest.raises(nbdclient.module().Error):
            join(server, name)
        handle = join(server, "fine")
        assert handle.pread(16, 0) == PLAIN[:16]
        handle.shutdown()
        assert sorted(image.parent.rglob("*")) == before


def test_names_at_the_limit_are_taken(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder) as server:
        for name in ("a", "x" * 200, "A.b_c-9", "-", "_", "a..b"):
            handle = join(server, name)
            handle.pwrite(b"z", 5)
            handle.shutdown()
            assert (folder / f"{name}.cow").exists()


def test_a_link_in_the_directory_is_not_followed(image: Path, folder: Path) -> None:
    victim = image.parent / "victim"
    (folder / "trap.cow").symlink_to(victim)
    with serving(image, "--sessions", folder, quiet=False) as server:
        try:
            handle = join(server, "trap")
            with pytest.raises(nbdclient.module().Error):
                handle.pwrite(b"z", 0)
        except nbdclient.module().Error:
            pass  # refused at once is as good
        assert not victim.exists()


def test_no_more_than_the_most_sessions(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder, "--max-sessions", "2", quiet=False) as server:
        for name in ("a", "b"):
            handle = join(server, name)
            handle.pwrite(b"z", 0)
            handle.shutdown()
        with pytest.raises(nbdclient.module().Error):
            join(server, "c").pwrite(b"z", 0)
        assert sorted(path.name for path in folder.iterdir()) == ["a.cow", "b.cow"]
        again = join(server, "a")
        assert again.pread(1, 0) == b"z"
        again.shutdown()


def test_a_quota_is_enospc_for_one_session_alone(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder, "--session-quota", "128K", quiet=False) as server:
        greedy, modest = join(server, "greedy"), join(server, "modest")
        written = 0
        with pytest.raises(nbdclient.module().Error) as caught:  # noqa: PT012
            for at in range(0, SIZE, 4096):
                greedy.pwrite(b"g" * 4096, at)
                written = at + 4096
        assert caught.value.errno == "ENOSPC"
        assert 0 < written <= 128 * 1024
        assert greedy.pread(written, 0) == b"g" * written
        modest.pwrite(b"m" * 4096, 0)
        # Space that is given back can be used again.
        greedy.trim(written, 0)
        greedy.flush()
        greedy.pwrite(b"h" * 4096, SIZE - 4096)
        for handle in (greedy, modest):
            handle.shutdown()
    for name in ("greedy", "modest"):
        assert cowfile.original_refuses(folder / f"{name}.cow", PLAIN) is None
        assert (folder / f"{name}.cow").stat().st_blocks * 512 <= 128 * 1024


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


def test_a_session_in_use_elsewhere_is_refused_alone(image: Path, folder: Path) -> None:
    cow = folder / "mine.cow"
    with serving(image, cow), serving(image, "--sessions", folder, quiet=False) as server:
        with pytest.raises(nbdclient.module().Error):
            join(server, "mine").pwrite(b"z", 0)
        other = join(server, "other")
        other.pwrite(b"z", 0)
        other.shutdown()


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


def test_two_hundred_sessions_stay_small(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder) as server:
        pid = server.nbdkit_pid()

        def resident() -> int:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf(
                "SC_PAGESIZE"
            )

        first = join(server, "first")
        first.pwrite(b"z", 0)
        before = resident()
        handles = [join(server, f"s{number}") for number in range(200)]
        for handle in handles:
            handle.pwrite(b"z" * 4096, 0)
        grown = resident() - before
        assert grown < 64 * MIB, f"{grown >> 20} MiB for 200 sessions"
        for handle in [first, *handles]:
            handle.shutdown()


def test_what_does_not_go_together(image: Path, folder: Path, tmp_path: Path) -> None:
    wrong: list[list[str | Path]] = [
        [image, tmp_path / "c", "--sessions", folder],
        [image, "--max-sessions", "3"],
        [image, "--session-quota", "1M"],
    ]
    for arguments in wrong:
        assert cowcloop("serve", *arguments, expect=None).returncode in (1, 2)
    refused("serve", image, "--sessions", image, says="i.img")


def test_a_missing_directory_is_made(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    with serving(image, "--sessions", folder) as server:
        join(server, "a").pwrite(b"z", 0)
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "a.cow").exists()
