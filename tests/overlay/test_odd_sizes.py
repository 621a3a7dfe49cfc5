"""Bases that end within a KiB: a cowfile leaves that end out, and every command says so."""

from __future__ import annotations

from pathlib import Path

import cowcloop as package
import pytest
from support import cloop, nbdclient
from support.programs import cowcloop, mannered, one_line
from support.server import Server, attach

SECTOR = 512
WHOLE = 1 << 20
PLAIN = cloop.sample(WHOLE, 4096) + b"GPT." * (SECTOR // 4)
LEFT_OUT = (f"last {SECTOR} of {len(PLAIN)} bytes", f"--size {WHOLE + 1024}")


@pytest.fixture(params=["raw", "cloop"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "odd.img"
    path.write_bytes(PLAIN if request.param == "raw" else cloop.build(PLAIN, SECTOR))
    return path


def test_without_a_cowfile_all_of_it_is_there(odd: Path) -> None:
    done = cowcloop("extract", odd, "-")
    assert done.stdout == PLAIN
    assert done.stderr == b""


def test_every_command_tells_what_a_cowfile_leaves_out(odd: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    told = cowcloop("attach", odd, cow).stderr.decode()
    one_line(told, ("odd.img: ", "warning", *LEFT_OUT))
    cowcloop("detach", "--all")
    done = cowcloop("extract", odd, cow, "-")
    assert done.stdout == PLAIN[:WHOLE]
    one_line(done.stderr.decode(), ("odd.img: ", "warning", *LEFT_OUT))
    server = Server(odd, ":memory:")
    assert server.stop() == 0
    one_line(server.errors, ("odd.img: ", "warning", *LEFT_OUT))


def test_sessions_tell_once(odd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    folder.mkdir()
    server = Server(odd, "--sessions", folder)
    socket = server.uri.partition("?")[2]
    for name in ("ann", "bob"):
        handle = nbdclient.connect(f"nbd+unix:///{name}?{socket}")
        assert handle.get_size() == WHOLE
        handle.pwrite(b"x", 0)
        handle.shutdown()
    assert server.stop() == 0
    one_line(server.errors, ("odd.img: ", "warning", *LEFT_OUT))


def test_a_larger_device_has_the_end_as_well(odd: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    done = cowcloop("attach", odd, cow, "--size", str(WHOLE + 1024))
    assert done.stderr == b""
    handle = nbdclient.connect(done.stdout.decode().strip())
    assert handle.pread(SECTOR, WHOLE) == PLAIN[WHOLE:]
    handle.pwrite(b"written", WHOLE + 100)
    handle.shutdown()
    cowcloop("detach", "--all")
    end = PLAIN[WHOLE : WHOLE + 100] + b"written" + PLAIN[WHOLE + 107 :] + bytes(SECTOR)
    done = cowcloop("extract", odd, cow, "-")
    assert done.stdout == PLAIN[:WHOLE] + end
    assert done.stderr == b""


def test_commit_keeps_the_end(odd: Path, tmp_path: Path) -> None:
    cow, new = tmp_path / "c", tmp_path / "new"
    cowcloop("detach", attach(odd, cow))
    mannered(cowcloop("commit", odd, cow, new).stderr.decode())
    # Whole blocks: the last one is filled up with zeros.
    assert cowcloop("extract", new, "-").stdout.startswith(PLAIN)


def test_from_python(odd: Path, caplog: pytest.LogCaptureFixture) -> None:
    with package.open(odd, ":memory:") as disk:
        assert disk.size == WHOLE
    assert LEFT_OUT[0] in caplog.text
