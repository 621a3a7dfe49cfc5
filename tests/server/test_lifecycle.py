"""The server's life: ready, used, ended; what it says and what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cowcloop as package
import pytest
from support import cloop, cowfile, nbdclient
from support.programs import cowcloop, cowcloop_path, one_line, program, refused, run
from support.server import Server, alive, attach, children, free_port, listed, serving, wait_until

PLAIN = cloop.PLAIN


def _leftovers(runtime: Path) -> list[str]:
    """What a server that has ended left in its runtime directory."""
    return [str(path.relative_to(runtime)) for path in (runtime / "cowcloop").rglob("*")]


@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM", "Ctrl-C", "SIGHUP"])
def test_ends_cleanly(
    image: Path,
    tmp_path: Path,
    runtime: Path,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a client connected and unflushed writes: all is on disk, and nothing is left."""
    cow, temporary = tmp_path / "c", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    server = Server(image, cow)
    inside = server.nbdkit_pid()
    handle = nbdclient.connect(server.uri)
    handle.pwrite(b"never flushed", 1000)
    code = server.interrupt() if ending == "Ctrl-C" else server.stop(getattr(signal, ending))
    assert code == 0
    assert server.errors == ""
    assert not alive(inside)
    assert not server.socket.exists()
    assert _leftovers(runtime) == []
    assert list(temporary.iterdir()) == []
    assert cowfile.original_refuses(cow, PLAIN) is None
    assert cowcloop("extract", image, cow, "-").stdout[1000:1013] == b"never flushed"


def test_ready_means_that_it_answers(image: Path) -> None:
    for _ in range(5):
        with serving(image) as server:
            probe = socket.socket(socket.AF_UNIX)
            probe.connect(str(server.socket))
            assert probe.recv(8) == b"NBDMAGIC"
            probe.close()


def test_permissions(image: Path, tmp_path: Path, runtime: Path) -> None:
    old = os.umask(0)
    try:
        server = Server(image, tmp_path / "c")
    finally:
        os.umask(old)
    try:
        path = server.socket
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        for found in (runtime / "cowcloop").rglob("*"):
            wanted = 0o700 if found.is_dir() else 0o600
            assert stat.S_IMODE(found.lstat().st_mode) == wanted, found
        assert stat.S_IMODE((runtime / "cowcloop").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o600
    finally:
        server.stop()


@pytest.mark.parametrize("option", ["-U", "--unix"])
def test_a_socket_of_ones_own(image: Path, runtime: Path, option: str) -> None:
    path = runtime / "mine.sock"
    with serving(option, path, image) as server:
        assert server.socket == path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        size = run(program("nbdinfo", "libnbd-bin"), "--size", server.uri).stdout
        assert int(size) == len(PLAIN)
    assert not path.exists()


def test_a_socket_that_is_there_already(image: Path, runtime: Path) -> None:
    path = runtime / "mine.sock"
    path.write_text("precious")
    refused("serve", "-U", path, image, says="mine.sock")
    assert path.read_text() == "precious"
    path.unlink()
    with serving("-U", path, image) as first:
        refused("serve", "-U", path, image, says="mine.sock")
        assert nbdclient.connect(first.uri).get_size() == len(PLAIN)


def test_tcp_is_on_loopback(image: Path) -> None:
    port = free_port()
    with serving("--tcp", str(port), image) as server:
        assert server.uri.startswith("nbd://")
        assert str(port) in server.uri
        assert nbdclient.connect(server.uri).pread(512, 0) == PLAIN[:512]
        listening = [
            line.split()[1]
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            for line in Path(table).read_text().splitlines()[1:]
            if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        ]
        assert listening == [f"0100007F:{port:04X}"]
        refused("serve", "--tcp", str(port), image, says=str(port))


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "*", "0"])
def test_tcp_on_all_interfaces(image: Path, host: str) -> None:
    """It is told, and the URI is one that a client on this machine can use."""
    if host == "[::]" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    done = cowcloop("attach", "--tcp", f"{host}:0", image)
    uri = done.stdout.decode().strip()
    one_line(done.stderr.decode(), ("warning", f"--tcp {host}:0", "all interfaces"))
    assert uri.startswith("nbd://[::1]:" if host == "[::]" else "nbd://127.0.0.1:")
    assert nbdclient.connect(uri).pread(512, 0) == PLAIN[:512]
    (device,) = listed()
    assert (device["uri"], device["all_interfaces"]) == (uri, True)
    assert f"{uri} (all interfaces)" in cowcloop("list").stdout.decode()
    cowcloop("detach", f"localhost:{uri.rpartition(':')[2]}/")
    assert cowcloop("attach", "-q", "--tcp", f"{host}:0", image).stderr == b""
    cowcloop("detach", "--all")
    attach("--tcp", "0", image)
    assert listed()[0]["all_interfaces"] is False
    assert b"all interfaces" not in cowcloop("list").stdout


def test_the_errors_of_the_start_are_one_line(image: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.img"
    cut.write_bytes(image.read_bytes()[:300])
    for command in ("serve", "attach"):
        refused(command, cut, says="cut.img: ")
        refused(command, tmp_path / "none.img", says="none.img: ")


def test_a_missing_nbdkit_is_named_with_its_package(image: Path) -> None:
    bare = image.parent / "bare"
    bare.mkdir()
    done = run(cowcloop_path(), "serve", image, env={"PATH": str(bare)}, expect=1)
    line = done.stderr.decode()
    assert line.count("\n") == 1
    assert "nbdkit" in line
    assert "install" in line


def test_nbdkits_own_options_pass_through(image: Path) -> None:
    with serving(image, "--", "--filter=readahead") as server:
        assert nbdclient.connect(server.uri).pread(512, 4096) == PLAIN[4096:4608]
    line = cowcloop("serve", image, "--", "--no-such-option", expect=1).stderr.decode()
    assert "no-such-option" in line


def test_the_log_file(image: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    damaged = bytearray(image.read_bytes())
    damaged[-20] ^= 0xFF
    image.write_bytes(damaged)
    with serving("--log", log, image) as server:
        handle = nbdclient.connect(server.uri)
        for _ in range(3):
            with pytest.raises(nbdclient.module().Error):
                handle.pread(4096, len(PLAIN) - 4096)
        handle.shutdown()
    told = [line for line in log.read_text().splitlines() if "block 39" in line]
    assert told, log.read_text()
    assert len(told) == 1, "a damaged block is logged once"


def test_the_thread_that_started_it_ends(image: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(package.serve, image, ":memory:").result()
    with server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"on", 0)
        assert handle.pread(2, 0) == b"on"
        handle.shutdown()


def test_the_parent_is_killed(image: Path, tmp_path: Path, runtime: Path) -> None:
    """SIGKILL of the command: the server closes the cowfile and goes."""
    cow = tmp_path / "c"
    server = Server(image, cow)
    inside = server.nbdkit_pid()
    handle = nbdclient.connect(server.uri)
    handle.pwrite(b"orphan", 50)
    server.stop(signal.SIGKILL)
    wait_until(lambda: not alive(inside), "nbdkit to end with its parent")
    assert cowfile.original_refuses(cow, PLAIN) is None
    assert cowcloop("extract", image, cow, "-").stdout[50:56] == b"orphan"
    assert listed() == []
    assert _leftovers(runtime) == []


def test_nbdkit_is_killed(image: Path, tmp_path: Path, runtime: Path) -> None:
    """SIGKILL of nbdkit: the command says so and ends; the next one goes on at once."""
    cow = tmp_path / "c"
    server = Server(image, cow)
    handle = nbdclient.connect(server.uri)
    handle.pwrite(b"flushed", 50)
    handle.flush()
    os.kill(server.nbdkit_pid(), signal.SIGKILL)
    assert server.wait() == 1
    lines = server.errors.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("cowcloop: ")
    assert _leftovers(runtime) == []
    with serving(image, cow) as again:
        assert nbdclient.connect(again.uri).pread(7, 50) == b"flushed"


def test_exit_with_parent(image: Path, tmp_path: Path) -> None:
    script = (
        f"{cowcloop_path()} serve --exit-with-parent {image} {tmp_path}/c >{tmp_path}/uri & "
        "echo $!; while :; do sleep 0.05; done"
    )
    shell = subprocess.Popen(["/bin/bash", "-c", script], stdout=subprocess.PIPE, text=True)
    assert shell.stdout is not None
    command = int(shell.stdout.readline())
    uri = tmp_path / "uri"
    wait_until(lambda: uri.exists() and uri.read_text().endswith("\n"), "the URI")
    inside = children(command)
    assert inside
    shell.kill()
    shell.wait()
    shell.stdout.close()
    wait_until(lambda: not alive(command), "the command to end with its parent")
    wait_until(lambda: not any(map(alive, inside)), "nbdkit to end")
    assert cowfile.original_refuses(tmp_path / "c", PLAIN) is None


def test_mounted_through_fuse(
    chicken: Path, ext2: Path, tmp_path: Path, fuse: None, loop: None
) -> None:
    """The main job: mount it read-write, copy a file in, go on tomorrow."""
    cow, raw, mounted = tmp_path / "c", tmp_path / "raw", tmp_path / "mnt"
    mounted.mkdir()
    nbdfuse, mount = program("nbdfuse", "libnbd-bin"), program("mount", "mount")
    before = chicken.read_bytes()
    for day in range(2):
        with serving(chicken, cow) as server:
            raw.touch()
            bridge = subprocess.Popen([nbdfuse, raw, server.uri])
            try:
                wait_until(lambda: raw.stat().st_size == ext2.stat().st_size, "nbdfuse")
                run(mount, "-o", "loop,noatime", "-t", "ext2", raw, mounted)
                try:
                    if day == 0:
                        (mounted / "copied in").write_bytes(PLAIN)
                        (mounted / "etc/file1.conf").unlink()
                    else:
                        assert (mounted / "copied in").read_bytes() == PLAIN
                        assert not (mounted / "etc/file1.conf").exists()
                        assert (mounted / "etc/file2.conf").exists()
                finally:
                    run("umount", mounted)
            finally:
                run("fusermount3", "-u", raw, expect=None)
                bridge.wait(60)
        assert cowfile.original_refuses(cow, ext2.read_bytes()) is None
        out = tmp_path / "out"
        cowcloop("extract", chicken, cow, out)
        run(program("e2fsck", "e2fsprogs"), "-fn", out)
    assert chicken.read_bytes() == before


def test_a_server_killed_where_memory_is_limited(image: Path, tmp_path: Path) -> None:
    """Many programs crash when they get none; the limit is the likely reason then."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nbdkit").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (folder / "nbdkit").chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    limited = program("prlimit", "util-linux"), f"--as={1 << 40}"
    for before, hint in (((), False), (limited, True)):
        for command in ("serve", "attach"):
            done = run(*before, cowcloop_path(), command, image, expect=1, env=env)
            line = one_line(done.stderr.decode(), "nbdkit was killed by SIGSEGV")
            assert ("ulimit -v" in line) == hint


def test_a_command_that_the_server_ends_with(image: Path, tmp_path: Path) -> None:
    """nbdkit's --run: its output is the command's, and so are its input and its failure."""
    done = cowcloop("serve", image, "--", "--run", 'cat; echo "at $uri"', stdin=b"typed\n")
    asked, printed, typed = sorted(done.stdout.decode().splitlines())
    assert asked.startswith("at nbd+unix:")
    assert asked.partition("socket=")[2] == printed.partition("socket=")[2]
    assert typed == "typed"
    refused("serve", image, "--", "--run=exit 3", says="--run ended with exit status 3")
