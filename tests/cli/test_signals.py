"""What asks a command to end, from its first moment on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cowcloop
import pytest
from support.programs import PATIENCE, cowcloop_path, finding, run

PACKAGE = Path(cowcloop.__file__).parents[1]


@pytest.fixture
def struck(tmp_path: Path) -> dict[str, str]:
    """An environment in which Ctrl-C is pressed while modules are loaded."""
    (tmp_path / "rich_click.py").write_text(
        "import os, signal\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "os.write(1, b'went on')\n"
        "os._exit(7)\n"
    )
    return finding(tmp_path)


@pytest.mark.parametrize("way", ["program", "module"])
def test_ctrl_c_while_it_is_loaded(struck: dict[str, str], way: str) -> None:
    words = [cowcloop_path()] if way == "program" else [sys.executable, "-m", "cowcloop"]
    done = run(*words, "list", env=struck, expect=-signal.SIGINT)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_an_ignored_ctrl_c_stays_ignored(struck: dict[str, str]) -> None:
    """As in what a shell has put into the background."""
    script = "trap '' INT; exec \"$0\" list"
    done = run("bash", "-c", script, cowcloop_path(), env=struck, expect=7)
    assert (done.stdout, done.stderr) == (b"went on", b"")


def test_little_is_loaded_before_ctrl_c_is_answered() -> None:
    """And no signal's handler is changed by an import."""
    script = (
        "import sys\n"
        "import cowcloop.cli\n"
        "print({'cowcloop._core', 'typing', 're', 'signal'} & set(sys.modules))\n"
        "import signal\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    env = {"PYTHONPATH": str(PACKAGE)}
    # -S: other packages may load anything when Python starts.
    assert run(sys.executable, "-S", "-c", script, env=env).stdout == b"set()\nTrue\n"


def test_an_interrupt_is_told_on_one_line(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [cowcloop_path(), "create", "-", tmp_path / "out"],
        stdin=reader,
        stderr=subprocess.PIPE,
    )
    os.close(reader)
    assert child.stderr is not None
    # More than the pipe holds: it has begun to read.
    os.write(writer, bytes(1 << 16))
    os.write(writer, bytes(1 << 16))
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=PATIENCE)[1] == b"cowcloop: interrupted\n"
    assert child.returncode == 130
    os.close(writer)
    assert list(tmp_path.iterdir()) == []


def test_nohup(image: Path) -> None:
    """A server that is to outlive its terminal does."""
    script = 'trap \'\' HUP; exec "$0" serve "$1"'
    words = ["bash", "-c", script, cowcloop_path(), str(image)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("nbd")
        status = Path(f"/proc/{server.pid}/status").read_text()
        ignored = int(status.split("SigIgn:")[1].split()[0], 16)
        assert ignored >> (signal.SIGHUP - 1) & 1
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
