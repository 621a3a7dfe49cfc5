"""What a session may be called, how many there may be, and how large one gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import cowfile, nbdclient
from support.programs import cowcloop, refused
from support.server import serving
from support.sessions import PLAIN, join

HOSTILE = [
    "../x",
    "..",
    ".",
    ".hidden",
    "a/b",
    "/etc/passwd",
    "a b",
    "x" * 201,
    "x" * 4000,
    "caf\u00e9",
    "a\nb",
    "\udcff",
    "%2e%2e",
    "$(id)",
    "-\\-",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_is_refused(image: Path, folder: Path, name: str) -> None:
    before = sorted(image.parent.rglob("*"))
    with serving(image, "--sessions", folder, quiet=False) as server:
        with pytest.raises((nbdclient.module().Error, UnicodeEncodeError)):
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
            for at in range(0, len(PLAIN), 4096):
                greedy.pwrite(b"g" * 4096, at)
                written = at + 4096
        assert caught.value.errno == "ENOSPC"
        assert 0 < written <= 128 * 1024
        assert greedy.pread(written, 0) == b"g" * written
        modest.pwrite(b"m" * 4096, 0)
        # Space that is given back can be used again.
        greedy.trim(written, 0)
        greedy.flush()
        greedy.pwrite(b"h" * 4096, len(PLAIN) - 4096)
        for handle in (greedy, modest):
            handle.shutdown()
    for name in ("greedy", "modest"):
        assert cowfile.original_refuses(folder / f"{name}.cow", PLAIN) is None
        assert (folder / f"{name}.cow").stat().st_blocks * 512 <= 128 * 1024


def test_a_session_in_use_elsewhere_is_refused_alone(image: Path, folder: Path) -> None:
    cow = folder / "mine.cow"
    with serving(image, cow), serving(image, "--sessions", folder, quiet=False) as server:
        with pytest.raises(nbdclient.module().Error):
            join(server, "mine").pwrite(b"z", 0)
        other = join(server, "other")
        other.pwrite(b"z", 0)
        other.shutdown()


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
        assert grown < 64 << 20, f"{grown >> 20} MiB for 200 sessions"
        for handle in [first, *handles]:
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
