"""The registry of served devices."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cowcloop import registry
from cowcloop.registry import Record, RegistryError


def record(**changes: object) -> Record:
    values = {"pid": 1, "uri": "nbd://x", "socket": None, "image": "/i", "cowfiles": ["/c"]}
    return Record(**{**values, **changes})  # type: ignore[arg-type]


def test_the_directory_is_private(runtime: Path) -> None:
    path = registry.directory()
    assert path == runtime / "cowcloop"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.chmod(0o755)
    registry.directory()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_another_users_directory_is_refused(root: None, runtime: Path) -> None:
    path = registry.directory()
    os.chown(path, 12345, 12345)
    with pytest.raises(RegistryError, match="uid 12345"):
        registry.directory()


def test_a_runtime_directory_of_another_user_is_not_used(
    root: None, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root with a user's environment (sudo -E): nothing of root's is left in it."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs))
    assert registry.directory() == Path("/run/cowcloop")
    assert list(theirs.iterdir()) == []


def test_an_entry_lives_as_long_as_its_lock(runtime: Path) -> None:
    entry = registry.create()
    assert entry.alive()
    # Being started: not shown, and not taken for stale.
    assert registry.entries() == []
    assert entry.path.exists()
    entry.write(record())
    (found,) = registry.entries()
    assert (found.path, found.record) == (entry.path, record(started=found.record.started))  # type: ignore[union-attr]
    assert stat.S_IMODE((entry.path / "device.json").stat().st_mode) == 0o600
    entry.release()
    assert not entry.alive()
    assert registry.entries() == []
    assert list((runtime / "cowcloop").iterdir()) == []


def test_the_lock_is_inherited(runtime: Path) -> None:
    entry = registry.create()
    entry.write(record())
    holder = subprocess.Popen(
        ["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[entry.lock]
    )
    entry.release()
    assert len(registry.entries()) == 1
    holder.communicate()
    entry.wait_until_gone()
    assert registry.entries() == []


def test_finding_by_any_name(runtime: Path, tmp_path: Path) -> None:
    entry = registry.create()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "s")
    entry.write(record(socket=str(tmp_path / "s"), device="/dev/nbd7", mount=str(tmp_path)))
    for target in ("nbd://x", tmp_path / "s", link, "/dev/nbd7", tmp_path, entry.id):
        assert registry.find(str(target)).path == entry.path
    with pytest.raises(RegistryError, match="other: no such"):
        registry.find("other")
    entry.release()
    with pytest.raises(RegistryError, match="none is served"):
        registry.find("nbd://x")


def test_finding_by_an_address_written_otherwise(runtime: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"a b+\xe9")
    by_socket, by_port, of_another = (registry.create() for _ in range(3))
    uri = f"nbd+unix:///?socket={tmp_path}/a%20b%2B%E9"
    by_socket.write(record(uri=uri, socket=str(odd)))
    by_port.write(record(uri="nbd://127.0.0.1:10809"))
    of_another.write(record(uri="nbd://h:10810"))
    (tmp_path / "link").symlink_to(odd)
    for target in (
        f"nbds+unix:///?socket={tmp_path}/a%20%62%2b%e9",
        f"nbd+unix:///export?socket={tmp_path}//a%20b+%E9",
        f"nbd+unix:///?socket={tmp_path}/link",
        f"nbd:unix:{odd}",
        f"unix:{odd}",
    ):
        assert registry.find(target).path == by_socket.path, target
    for target in (
        "nbd://127.0.0.1:10809/",
        "nbd://localhost:10809",
        "nbd://LOCALHOST",
        "nbds://[::1]:10809/export",
        "127.0.0.1:10809",
        "localhost:10809",
        "[::1]:10809",
    ):
        assert registry.find(target).path == by_port.path, target
    assert registry.find("h:10810/").path == of_another.path
    for target in ("nbd://h", "localhost:10810", "localhost", "nbd://[x:1", "nbd://h:x", ":", ""):
        with pytest.raises(RegistryError, match="no such"):
            registry.find(target)
    for entry in (by_socket, by_port, of_another):
        entry.release()


def test_an_address_of_two_devices(runtime: Path) -> None:
    """Each has its own; what may mean both is refused."""
    first, second = (registry.create() for _ in range(2))
    first.write(record(uri="nbd://127.0.0.1:1"))
    second.write(record(uri="nbd://[::1]:1"))
    assert registry.find("nbd://127.0.0.1:1").path == first.path
    assert registry.find("nbd://[::1]:1").path == second.path
    with pytest.raises(RegistryError, match="2 devices"):
        registry.find("localhost:1")
    first.release()
    second.release()


def test_a_dead_server_s_socket_is_removed_with_its_entry(runtime: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    entry = registry.create()
    entry.write(record(socket=str(path)))
    listener.close()
    entry.release()
    assert registry.entries() == []
    assert not path.exists()


def test_a_socket_in_use_and_other_files_stay(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert not registry.remove_dead_socket(str(path))
        assert path.exists()
    file = tmp_path / "f"
    file.write_text("precious")
    assert not registry.remove_dead_socket(str(file))
    link = tmp_path / "l"
    link.symlink_to(path)
    assert not registry.remove_dead_socket(str(link))
    assert registry.remove_dead_socket(str(path))
    assert (file.exists(), link.is_symlink(), path.exists()) == (True, True, False)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": 1}', "null", "\x00"])
def test_a_damaged_record_is_no_device(runtime: Path, content: str) -> None:
    entry = registry.create()
    (entry.path / "device.json").write_text(content)
    assert registry.entries() == []
    entry.release()


def test_a_record_of_a_newer_version_is_read(runtime: Path) -> None:
    entry = registry.create()
    entry.write(record())
    path = entry.path / "device.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2, "colour": "red"}))
    assert len(registry.entries()) == 1
    entry.release()


def test_entries_are_made_under_the_directory_s_lock(runtime: Path) -> None:
    """A scan never sees an entry before it is locked: both take the same lock."""
    handle = os.open(registry.directory(), os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    script = "import cowcloop.registry as r; r.directory(); print(flush=True); r.create()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        maker.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            maker.wait(0.3)
        assert list((runtime / "cowcloop").iterdir()) == []
        os.close(handle)
        assert maker.wait(60) == 0
    assert len(list((runtime / "cowcloop").iterdir())) == 1
