"""Servers and systemd: what needs no systemd to be tested. The rest is in tests/guest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from cowcloop.registry import place, unit_devices
from cowcloop.server import messages, units
from support import users
from support.programs import PATIENCE, cowcloop_path, program, run


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(abstract: bool, chicken: Path, tmp_path: Path) -> None:
    """READY when the socket is there, STOPPING before everything goes to disk."""
    name = f"\0cowcloop-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(PATIENCE)
        place = tmp_path / "s"
        server = subprocess.Popen(
            [cowcloop_path(), "serve", "-U", str(place), str(chicken)],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "NOTIFY_SOCKET": name.replace("\0", "@")},
        )
        try:
            ready = manager.recv(4096).decode()
            assert place.exists()
            assert ready.splitlines() == ["READY=1", f"STATUS=serving nbd+unix:///?socket={place}"]
            server.send_signal(signal.SIGTERM)
            assert manager.recv(4096).decode().splitlines()[0] == "STOPPING=1"
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()
            server.wait()


def test_what_does_not_serve_is_not_ready(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.setblocking(False)
        run(cowcloop_path(), "serve", tmp_path / "absent", env={"NOTIFY_SOCKET": name}, expect=1)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_a_socket_where_nothing_listens_is_no_error(chicken: Path, tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "nothing")}
    done = run("timeout", "-s", "INT", "3", cowcloop_path(), "serve", chicken, env=env, expect=None)
    assert done.stdout.startswith(b"nbd+unix:")


@pytest.mark.parametrize("path", ["/", "/mnt", "/mnt/a b", "/.x/y.z", "/dev/nbd0p1", "/ä-_:\\"])
def test_names_of_units_are_systemds(path: str) -> None:
    if shutil.which("systemd-escape") is None:
        pytest.skip("systemd-escape is not installed")
    escaped = run("systemd-escape", "--path", path).stdout.decode().strip()
    assert units._escaped(path) == escaped


def test_what_an_initramfs_starts_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's last kill spares it, and its messages are understood."""
    assert units.argv0("/usr/bin/nbdkit") == "/usr/bin/nbdkit"
    monkeypatch.setattr(units, "_INITRAMFS", ("/nowhere", "/"))
    assert units.argv0("/usr/bin/nbdkit") == "@nbdkit"
    done = subprocess.run(
        ["@nbdkit", "-f", "absent"],
        executable=program("nbdkit", "nbdkit"),
        capture_output=True,
        text=True,
        check=False,
    )
    message = messages.translate(done.stderr.splitlines()[0], {}, "here")
    assert message is not None
    assert message.level == "error"
    # nbdkit 1.42 names the plugin's file.
    assert message.text.startswith("cannot open plugin ")
    assert "absent" in message.text


def test_roots_registry_outlives_the_session(monkeypatch: pytest.MonkeyPatch, root: None) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    assert place._place() == Path("/run/cowcloop")


def test_what_a_units_user_writes_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, root: None, runtime: Path
) -> None:
    """Root looks at it, and is neither held up nor led elsewhere."""
    monkeypatch.setattr(unit_devices, "_RUN", runtime)
    folder = runtime / "cowcloop-x" / "cowcloop"
    with subprocess.Popen(["sleep", "100"], user=users.NOBODY) as theirs:
        good = {
            "pid": theirs.pid,
            "uri": "nbd+unix:///?socket=/s",
            "socket": "/s",
            "image": "/i",
            "cowfiles": ["/c"],
            "started": 1.0,
        }
        records: dict[str, object] = {
            "good": good,
            "root": {**good, "pid": os.getpid()},
            "device": {**good, "device": "/dev/sda"},
            "mount": {**good, "mount": "/"},
            "types": {**good, "cowfiles": 7},
            "number": {**good, "pid": "1"},
            "names": {**good, "uri": None},
            "list": [],
        }
        for name, record in records.items():
            (folder / name).mkdir(parents=True)
            (folder / name / "device.json").write_text(json.dumps(record))
        (folder / "nested").mkdir()
        (folder / "nested" / "device.json").write_text("[" * 100_000)
        (folder / "fifo").mkdir()
        os.mkfifo(folder / "fifo" / "device.json")
        (folder / "link").mkdir()
        (folder / "link" / "device.json").symlink_to(folder / "good" / "device.json")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, users.NOBODY, users.NOBODY, follow_symlinks=False)
        found = list(unit_devices.entries())
        theirs.kill()
    assert [entry.id for entry in found] == ["good"]
    found[0].remove()
    assert (folder / "good").exists()
    # Not by another's word, and not root's own.
    os.chown(folder, 0, 0)
    assert list(unit_devices.entries()) == []
