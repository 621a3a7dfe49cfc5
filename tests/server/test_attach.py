"""attach, list, sync and detach: devices in the background."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cowcloop.cli import console, waiting
from cowcloop.registry import find
from support import cloop, cowfile, nbdclient
from support.programs import PATIENCE, cowcloop, cowcloop_path, one_line, refused, run
from support.server import alive, attach, listed, serving, socket_of, wait_until

PLAIN = cloop.PLAIN


def test_attach_list_sync_detach(image: Path, tmp_path: Path, runtime: Path) -> None:
    cow = tmp_path / "c"
    assert listed() == []
    uri = attach(image, cow)
    handle = nbdclient.connect(uri)
    handle.pread(4096, 8192)
    handle.pwrite(b"background", 5)
    (device,) = listed()
    assert device["image"] == str(image)
    assert device["uri"] == uri
    assert device["size"] == len(PLAIN)
    assert alive(device["pid"])
    (file,) = device["cowfiles"]
    assert file["path"] == str(cow)
    assert file["state"] == "dirty"
    assert (file["blocks_used"], file["blocks_total"]) == (1, 160)
    assert file["writes"] == 1
    assert device["base"]["reads"] >= 1
    assert device["cache"]["misses"] >= 1
    shown = cowcloop("list").stdout.decode()
    assert str(image) in shown or "i.img" in shown

    for target in (uri, str(socket_of(uri)), "--all"):
        assert cowcloop("sync", target).stdout == b""
    assert listed()[0]["cowfiles"][0]["flushes"] >= 1
    handle.shutdown()
    assert cowcloop("detach", uri).stderr == b""
    assert not alive(device["pid"])
    assert listed() == []
    assert list((runtime / "cowcloop").iterdir()) == []
    # Everything is on disk when detach returns.
    assert cowfile.original_refuses(cow, PLAIN) is None
    assert cowcloop("extract", image, cow, "-").stdout[5:15] == b"background"


def test_detach_by_socket_and_all(image: Path) -> None:
    uris = [attach(image, ":memory:") for _ in range(3)]
    assert len(set(uris)) == 3
    assert len(listed()) == 3
    cowcloop("detach", socket_of(uris[1]))
    assert sorted(device["uri"] for device in listed()) == sorted([uris[0], uris[2]])
    cowcloop("detach", "--all")
    assert listed() == []
    cowcloop("detach", "--all")  # nothing to do is not an error


def test_detach_or_sync_of_nothing(tmp_path: Path) -> None:
    for target in ("nbd+unix:///?socket=/nowhere", tmp_path / "none.sock", "/dev/nbd77"):
        refused("detach", target)
        refused("sync", target)


def test_the_next_day(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    for day in range(3):
        uri = attach(image, cow)
        handle = nbdclient.connect(uri)
        assert handle.pread(day + 1, 0) == b"x" * day + PLAIN[day : day + 1]
        handle.pwrite(b"x", day)
        handle.shutdown()
        cowcloop("detach", uri)
        assert cowfile.original_refuses(cow, PLAIN) is None


def test_detach_with_a_client_connected(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    uri = attach(image, cow)
    handle = nbdclient.connect(uri)
    handle.pwrite(b"in flight", 0)
    cowcloop("detach", uri)
    assert listed() == []
    assert cowcloop("extract", image, cow, "-").stdout[:9] == b"in flight"


def test_attach_survives_its_terminal(image: Path, tmp_path: Path) -> None:
    """attach lives in a session of its own: neither Ctrl-C nor a hang-up reaches it."""
    shell = subprocess.Popen(
        ["/bin/bash", "-c", f"{cowcloop_path()} attach {image} {tmp_path}/c; sleep 60"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert shell.stdout is not None
    uri = shell.stdout.readline().strip()
    for number in (signal.SIGINT, signal.SIGHUP):
        os.killpg(shell.pid, number)
    shell.wait(60)
    shell.stdout.close()
    handle = nbdclient.connect(uri)
    assert handle.pread(512, 0) == PLAIN[:512]
    handle.shutdown()
    (device,) = listed()
    os.kill(device["pid"], signal.SIGTERM)  # as when the machine shuts down
    wait_until(lambda: not alive(device["pid"]), "the server to end")
    assert cowfile.original_refuses(tmp_path / "c", PLAIN) is None
    assert listed() == []


def test_attach_gives_its_output_back(image: Path) -> None:
    """A script that reads attach's output to its end does not wait for the server."""
    done = run("/bin/bash", "-c", f"uri=$({cowcloop_path()} attach {image} 2>&1); echo $uri")
    assert done.stdout.startswith(b"nbd+unix://")


def test_a_killed_device_is_cleaned_up(image: Path, tmp_path: Path, runtime: Path) -> None:
    cow = tmp_path / "c"
    uri = attach(image, cow)
    handle = nbdclient.connect(uri)
    handle.pwrite(b"kept", 0)
    handle.flush()
    os.kill(listed()[0]["pid"], signal.SIGKILL)
    wait_until(lambda: listed() == [], "list to drop it")
    assert list((runtime / "cowcloop").iterdir()) == []
    uri = attach(image, cow)
    assert nbdclient.connect(uri).pread(4, 0) == b"kept"
    cowcloop("detach", uri)


_KILLED = """
import os, signal, sys
from cowcloop import registry
from cowcloop.cli import main

def die(entry, record):
    print(record.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

registry.NewEntry.write = die
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("options", [[], ["--log", "log"]], ids=["forked", "child"])
def test_the_server_outlives_attach(image: Path, tmp_path: Path, options: list[str]) -> None:
    cow = tmp_path / "c"
    uri = cowcloop("attach", image, cow, *options, cwd=tmp_path).stdout.decode().strip()
    (device,) = listed()
    handle = nbdclient.connect(uri)
    handle.pwrite(b"still here", 0)
    handle.shutdown()
    assert alive(device["pid"])
    cowcloop("detach", uri)
    assert cowcloop("extract", image, cow, "-").stdout[:10] == b"still here"


@pytest.mark.parametrize("options", [[], ["--log", "log"]], ids=["forked", "child"])
def test_the_server_of_a_killed_attach_ends(
    image: Path, tmp_path: Path, runtime: Path, options: list[str]
) -> None:
    words = [sys.executable, "-c", _KILLED, "attach", str(image), str(tmp_path / "c"), *options]
    done = subprocess.run(words, stdout=subprocess.PIPE, cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not alive(int(done.stdout)), "the server to end")
    assert listed() == []
    assert list((runtime / "cowcloop").iterdir()) == []
    cowcloop("detach", attach(image, tmp_path / "c"))


def test_everything_at_once(image: Path, tmp_path: Path) -> None:
    """attach, list, sync and detach from many at the same time."""

    def one(number: int) -> str:
        uri = attach(image, tmp_path / f"c{number}")
        listed()
        cowcloop("sync", "--all", expect=None)  # others may go away meanwhile
        handle = nbdclient.connect(uri)
        handle.pwrite(b"%d" % number, 0)
        handle.shutdown()
        cowcloop("detach", uri)
        return uri

    with ThreadPoolExecutor(4) as pool:
        uris = list(pool.map(one, range(8)))
    assert len(set(uris)) == 8
    assert listed() == []
    for number in range(8):
        assert cowfile.parse(tmp_path / f"c{number}").blocks[0][:1] == b"%d" % number


def test_two_race_for_one_cowfile(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: cowcloop("attach", image, cow, expect=None), range(4)))
    assert sorted(each.returncode for each in done) == [0, 1, 1, 1]
    for each in done:
        if each.returncode:
            assert b"in use" in each.stderr
    assert len(listed()) == 1


@pytest.mark.parametrize("command", ["detach", "sync"])
def test_a_stopped_server_is_named(image: Path, command: str) -> None:
    """A command that waits for it says so at once, and ends when the server goes on."""
    uri = attach(image, ":memory:")
    (pid,) = [device["pid"] for device in listed()]
    os.kill(pid, signal.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it to be stopped")
    waiting = subprocess.Popen([cowcloop_path(), command, uri], stderr=subprocess.PIPE)
    try:
        assert waiting.stderr is not None
        assert select.select([waiting.stderr], [], [], 30)[0], "nothing is said"
    finally:
        os.kill(pid, signal.SIGCONT)
        said = waiting.communicate(timeout=PATIENCE)[1].decode()
    one_line(said, ("warning: nbd+unix:", f"its server (process {pid}) is stopped"))
    assert waiting.returncode == 0
    assert len(listed()) == (command == "sync")


def test_a_slow_server_is_named(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = find(attach(image))
    assert entry.record is not None
    monkeypatch.setattr(waiting, "_PATIENCE", 0)
    told = threading.Event()
    warning = console.warning

    def tell(text: str) -> None:
        warning(text)
        told.set()

    monkeypatch.setattr(console, "warning", tell)
    with waiting.waiting_for(entry):
        assert told.wait(60)
    one_line(capsys.readouterr().err, f"waits for its server (process {entry.record.pid})")
    # One that is quick enough is not.
    monkeypatch.setattr(waiting, "_PATIENCE", 1000)
    with waiting.waiting_for(entry):
        pass
    assert capsys.readouterr().err == ""


def test_served_devices_are_listed_too(image: Path) -> None:
    with serving(image) as server:
        (device,) = listed()
        assert device["uri"] == server.uri
        assert device["read_only"] is True
        assert device["cowfiles"] == []
        cowcloop("sync", server.uri)
    assert listed() == []


def test_detach_ends_a_served_device(image: Path, tmp_path: Path) -> None:
    from support.server import Server

    server = Server(image, tmp_path / "c")
    cowcloop("detach", server.uri)
    assert server.wait() == 0
    assert server.errors == ""


@pytest.mark.parametrize("kind", ["symlink", "file", "open to all"])
def test_a_hostile_runtime_directory(image: Path, tmp_path: Path, runtime: Path, kind: str) -> None:
    """Another user's directory, or a link to one, is not used."""
    folder = runtime / "cowcloop"
    if kind == "symlink":
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        folder.symlink_to(elsewhere)
        refused("attach", image, says="cowcloop")
        assert list(elsewhere.iterdir()) == []
        folder.unlink()
    elif kind == "file":
        folder.write_text("")
        refused("attach", image, says="cowcloop")
        folder.unlink()
    else:
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        done = cowcloop("attach", image, expect=None)
        assert done.returncode == 1 or folder.stat().st_mode & 0o077 == 0


def test_names_are_never_given_to_a_shell(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    folder = tmp_path / f"a $(touch {marker.name}) ; ' \" = , \\ %s ü"
    folder.mkdir()
    image = folder / "i=1,cow=x.img"
    image.write_bytes(cloop.build(PLAIN, 4096))
    cow = folder / "-c&.cow"
    done = cowcloop("attach", image, cow, cwd=tmp_path)
    uri = done.stdout.decode().strip()
    handle = nbdclient.connect(uri)
    handle.pwrite(b"q", 0)
    handle.shutdown()
    (device,) = listed()
    assert (device["image"], device["cowfiles"][0]["path"]) == (str(image), str(cow))
    cowcloop("detach", uri)
    assert cow.exists()
    assert not marker.exists()


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    path, low, cow = folder / "i.img", folder / "low", folder / os.fsdecode(b"\xff.cow")
    path.write_bytes(cloop.build(PLAIN, 4096))
    cowcloop("detach", attach(path, low))
    with serving(path, low, cow) as server:
        assert nbdclient.connect(server.uri).pread(16, 0) == PLAIN[:16]
        (device,) = listed()
        assert device["image"] == str(path)
        files = [(file["path"], file["state"]) for file in device["cowfiles"]]
        assert files == [(str(low), "read-only"), (str(cow), "clean")]
        assert os.fsencode(cow) in cowcloop("list").stdout
    sessions = folder / "s"
    sessions.mkdir()
    (sessions / "old.cow").write_bytes(cow.read_bytes())
    with serving(path, "--sessions", sessions):
        (session,) = listed()[0]["sessions"]
        assert session["path"] == str(sessions / "old.cow")


def test_a_socket_whose_name_is_not_utf8(image: Path, tmp_path: Path) -> None:
    socket = tmp_path / os.fsdecode(b"caf\xe9.sock")
    uri = attach(image, "-U", socket)
    assert "caf%E9.sock" in uri
    assert run("nbdinfo", "--size", uri).stdout.strip() == str(len(PLAIN)).encode()
    cowcloop("detach", socket)
    assert not os.path.lexists(socket)


def test_names_cannot_draw_on_the_terminal(image: Path, tmp_path: Path) -> None:
    """Control characters in the name of a file are shown, not obeyed."""
    odd = tmp_path / "two\nlines\x1b[31m\x9b1m"
    image.rename(odd)
    uri = attach(odd, ":memory:")
    table = cowcloop("list").stdout.decode()
    assert len(table.splitlines()) == 2
    shown = [table]
    cowcloop("detach", uri)
    for command in ("info", "verify", "map"):
        shown.append(cowcloop(command, odd).stdout.decode())
    shown.append(refused("info", f"{odd}.missing"))
    for text in shown:
        assert r"two\nlines\x1b[31m\x9b1m" in text
        assert "\x1b[31m" not in text
        assert "\x9b" not in text


def test_an_address_that_cannot_be_printed(image: Path, tmp_path: Path) -> None:
    """A device whose address could not be printed is not left behind."""
    socket = tmp_path / "s"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [cowcloop_path(), "attach", str(image), "-U", str(socket)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    one_line(done.stderr.decode(), ("standard output", "No space left"))
    assert listed() == []
    assert not socket.exists()


def test_completion_knows_the_served_devices(image: Path, tmp_path: Path, runtime: Path) -> None:
    assert runtime
    socket = tmp_path / "s.sock"
    attach(image, "-U", socket)
    words = f"cowcloop detach {tmp_path}"
    env = {"_COWCLOOP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
    assert f"plain,{socket}" in run(cowcloop_path(), env=env).stdout.decode()
    cowcloop("detach", "--all")
    assert str(socket) not in run(cowcloop_path(), env=env).stdout.decode()


@pytest.mark.parametrize("limit", [8, 11, 14, 16, 18, 20, 33, 40])
def test_few_files_may_be_open(image: Path, tmp_path: Path, limit: int) -> None:
    """It works, or the limit is named at once; a server that never answers is worse."""

    def limited(*words: Path | str, expect: int) -> str:
        script = f'ulimit -n {limit}; exec "$@"'
        command = ("bash", "-c", script, "bash", cowcloop_path(), *words)
        return run(*command, expect=expect).stderr.decode()

    assert limited("info", image, expect=0) == ""
    assert limited("extract", image, tmp_path / "out", expect=0) == ""
    enough = limit >= 33
    said = limited("attach", image, tmp_path / "c", expect=0 if enough else 1)
    if not enough:
        one_line(said, "raise the limit (ulimit -n)")
        one_line(limited("serve", image, expect=1), "raise the limit (ulimit -n)")
    assert len(listed()) == enough
