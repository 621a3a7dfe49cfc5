"""Completion of words, in the shells themselves: what they know, and what they make of it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import programs
from support.programs import cowcloop
from support.server import attach, serving


class Terminal:
    """An interactive shell in a folder with some files, on a terminal of its own."""

    def __init__(self, shell: str, folder: Path, setup: str, *options: str) -> None:
        main, side = pty.openpty()
        self._main = main
        path = f"{Path(programs.cowcloop_path()).parent}:{os.environ['PATH']}"
        self._child = subprocess.Popen(
            [shell, *options],
            stdin=side,
            stdout=side,
            stderr=side,
            cwd=folder,
            env={**os.environ, "PATH": path, "TERM": "dumb", "HOME": str(folder), "COLUMNS": "200"},
            start_new_session=True,
        )
        os.close(side)
        self._seen = ""
        self.send(f"{setup}\n")
        # In two halves, so that the line itself is not it.
        self.send("echo SET''UP\n")
        self.wait_for("SETUP")

    def send(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def wait_for(self, text: str) -> str:
        """What was shown up to this text, from the last one on."""
        end = time.monotonic() + 30
        while text not in self._seen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} is not in {self._seen!r}"
            if select.select([self._main], [], [], left)[0]:
                self._seen += os.read(self._main, 65536).decode(errors="replace")
        before, _, self._seen = self._seen.partition(text)
        return before

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._main)

    def completed(self, words: str) -> str:
        """The line that a tabulator makes of it, where there is one way to go on."""
        self.send(f"{words}\t")
        # To the beginning, where the line becomes the argument of another command.
        self.send("\x01echo 'GOT'\x05 DO''NE\n")
        # The shell shows the line as it is typed, too.
        line = self.wait_for("DONE").rpartition("GOT")[2]
        return line.removeprefix("cowcloop").strip()


@pytest.fixture
def folder(tmp_path: Path, image: Path) -> Path:
    place = tmp_path / "place"
    (place / "directory").mkdir(parents=True)
    (place / "diskfile").write_bytes(image.read_bytes())
    return place


@pytest.fixture
def fish(folder: Path) -> Path:
    programs.program("fish", "fish")
    completions = folder / ".config/fish/completions"
    completions.mkdir(parents=True)
    code = cowcloop("--show-completion=fish").stdout
    (completions / "cowcloop.fish").write_bytes(code)
    return folder


def _fish(folder: Path, words: str) -> dict[str, str]:
    """What fish offers, each with its description."""
    path = f"{Path(programs.cowcloop_path()).parent}:{os.environ['PATH']}"
    done = programs.run(
        "fish",
        "-c",
        f"complete -C {words!r}",
        cwd=folder,
        env={"HOME": str(folder), "PATH": path, "XDG_CONFIG_HOME": str(folder / ".config")},
    )
    assert done.stderr == b""
    pairs = (line.partition("\t") for line in done.stdout.decode().splitlines())
    return {word: about for word, _, about in pairs}


def test_fish_shows_whole_descriptions(fish: Path) -> None:
    commands = _fish(fish, "cowcloop ")
    assert commands["cow"] == "Repair, merge, pack, watch and copy cowfiles."
    assert commands["map"] == "Draw a device: zeros, compressed how well, changed, damaged."
    assert not any(about.endswith("...") for about in commands.values())
    options = _fish(fish, "cowcloop serve diskfile --")
    assert options["--read-only"] == "Refuse writes, even with a COW."
    assert _fish(fish, "cowcloop serve diskfile --tls=r") == {"--tls=require": ""}


def test_fish_knows_files_directories_and_devices(fish: Path) -> None:
    assert _fish(fish, "cowcloop umount di").keys() == {"directory/"}
    assert _fish(fish, "cowcloop serve diskfile --sessions di").keys() == {"directory/"}
    assert _fish(fish, "cowcloop serve diskfile --sessions=di").keys() == {"--sessions=directory/"}
    assert _fish(fish, "cowcloop info di").keys() == {"directory/", "diskfile"}
    socket = attach(fish / "diskfile").partition("socket=")[2]
    for command in ("detach", "sync", "suspend", "resume", "reopen"):
        assert _fish(fish, f"cowcloop {command} ") == {socket: "diskfile"}, command
    for command in ("snapshot", "watch"):
        found = _fish(fish, f"cowcloop cow {command} ")
        assert found.keys() == {socket, "directory/", "diskfile"}, command


_SETUP = {
    "bash": (
        "PS1='READY>'; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; "
        'eval "$(cowcloop --show-completion=bash)"'
    ),
    "zsh": (
        "PS1='READY>'; unsetopt zle_bracketed_paste beep auto_remove_slash; bindkey -e; "
        'autoload -Uz compinit; compinit -u; eval "$(cowcloop --show-completion=zsh)"'
    ),
}
_OPTIONS = {"bash": ("--norc", "--noprofile", "-i"), "zsh": ("-f", "-i")}


@pytest.fixture(params=["bash", "zsh"])
def terminal(request: pytest.FixtureRequest, folder: Path) -> Iterator[Terminal]:
    shell: str = request.param
    programs.program(shell, shell)
    made = Terminal(shell, folder, _SETUP[shell], *_OPTIONS[shell])
    yield made
    made.close()


def test_a_shell_completes_commands_files_and_directories(terminal: Terminal) -> None:
    assert terminal.completed("cowcloop extr") == "extract"
    assert terminal.completed("cowcloop serve --read-o") == "serve --read-only"
    assert terminal.completed("cowcloop umount di") == "umount directory/"
    assert terminal.completed("cowcloop serve diskfile --sessions di").endswith("directory/")
    assert terminal.completed("cowcloop serve diskfile --sessions=di").endswith("=directory/")
    assert terminal.completed("cowcloop serve diskfile --tls=req").endswith("--tls=require")
    assert terminal.completed("cowcloop info disk") == "info diskfile"


def test_a_shell_completes_served_devices(terminal: Terminal, folder: Path, runtime: Path) -> None:
    with serving(folder / "diskfile") as server:
        socket = server.socket
        assert socket is not None
        for command in ("suspend", "resume", "detach"):
            line = terminal.completed(f"cowcloop {command} {runtime}")
            assert line.split()[-1] == str(socket), command
        # Beside files: what is typed stays.
        line = terminal.completed(f"cowcloop cow snapshot {str(runtime)[:-2]}")
        assert line.split()[-1].startswith(str(runtime))
        assert terminal.completed("cowcloop cow snapshot diskf") == "cow snapshot diskfile"
