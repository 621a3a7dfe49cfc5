"""The systemd units: what they start works, and takes the socket that systemd opened."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest
from cowcloop.server.command import plugin_path
from support.programs import ROOT, cowcloop_path, program, run

UNITS = ROOT / "contrib/systemd"
# Hands the socket on as systemd does: descriptor 3, and the number of the process that takes it.
_ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def unit(name: str) -> RawConfigParser:
    """A unit's sections. Names are kept as they are written."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / name)
    return parser


def test_the_activated_server(chicken: Path, ext2: Path, runtime: Path) -> None:
    words = unit("cowcloop-activated.service")["Service"]["ExecStart"].split()
    stand_ins = {
        "/usr/bin/nbdkit": program("nbdkit", "nbdkit"),
        "cowcloop": plugin_path(),
        "image=/srv/cowcloop/chicken.cloop": f"image={chicken}",
        "cow=/var/lib/cowcloop-activated/chicken.cow": f"cow={runtime / 'chicken.cow'}",
        "kept=/var/lib/cowcloop-activated/kept": f"kept={runtime / 'kept'}",
    }
    command = [stand_ins.get(word, word) for word in words]
    assert all(Path(word.partition("=")[2] or word).is_absolute() for word in command[3:])
    assert not any("/srv/" in word or "/var/lib/" in word for word in command)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(runtime / "s"))
        listening.listen()
        number = listening.fileno()
        server = subprocess.Popen(
            [sys.executable, "-c", _ACTIVATE, str(number), *command], pass_fds=[number]
        )
    try:
        uri = f"nbd+unix:///?socket={runtime / 's'}"
        done = run(program("nbdinfo", "libnbd-bin"), "--size", uri)
        assert int(done.stdout) == ext2.stat().st_size
        # Its last client has gone, so it ends, and the cowfile is there.
        assert server.wait(60) == 0
        assert (runtime / "chicken.cow").exists()
    finally:
        server.kill()
        server.wait()


def test_the_service_is_what_the_program_takes() -> None:
    service = unit("cowcloop@.service")["Service"]
    words = service["ExecStart"].replace("%i", "x").split()
    assert words[:4] == ["/usr/bin/cowcloop", "serve", "--unix", "/run/cowcloop-x/nbd.sock"]
    assert words[4:6] == ["/srv/cowcloop/x.cloop", "/var/lib/cowcloop/x/x.cow"]
    assert words[6:] == ["--", "kept=/var/lib/cowcloop/x/kept"]
    assert service["RuntimeDirectory"] == "cowcloop-%i"
    assert service["StateDirectory"] == "cowcloop/%i"
    assert os.path.dirname(words[3]) == service["Environment"].replace("%i", "x").split("=")[1]


def test_the_unit_that_mounts(chicken: Path, tmp_path: Path, fuse: None, root: None) -> None:
    """Its commands, with other folders, do what they are there for."""
    service = unit("cowcloop-mount@.service")["Service"]
    assert service["StateDirectory"] == "cowcloop-mount"
    folders = {
        "/srv/cowcloop/%i.cloop": str(chicken),
        "/var/lib/cowcloop-mount/%i.cow": str(tmp_path / "x.cow"),
        "/mnt/%i": str(tmp_path / "mnt"),
        "/usr/bin/cowcloop": cowcloop_path(),
    }
    start, stop = (
        [folders.get(word, word) for word in service[name].split()]
        for name in ("ExecStart", "ExecStop")
    )
    run(*(folders.get(word, word) for word in service["ExecStartPre"].split()))
    run(*start)
    try:
        (tmp_path / "mnt" / "new").write_text("written")
    finally:
        run(*stop)
    assert not list((tmp_path / "mnt").iterdir())
    run(*start)
    try:
        assert (tmp_path / "mnt" / "new").read_text() == "written"
    finally:
        run(*stop)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Names, sections and values; the programs that they start need not be installed."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copies = []
    for path in sorted(UNITS.iterdir()):
        copy = tmp_path / path.name.replace("@.", "@x.")
        copy.write_text(path.read_text().replace("/usr/bin/cowcloop", "/bin/true"))
        copies.append(copy)
    done = run("systemd-analyze", "verify", "--man=no", *copies)
    assert done.stderr == b""
