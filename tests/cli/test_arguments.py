"""The command line itself: what is refused as wrong, and how help and errors read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from cowcloop.cli import app
from support import users
from support.programs import cowcloop, cowcloop_path, finding, one_line, run

COMMANDS = list(app.COMMANDS)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_examples(command: list[str], option: str) -> None:
    done = cowcloop(*command, option)
    text = done.stdout.decode()
    assert done.stderr == b""
    assert ("Examples:" if option == "--help" else "Example:") in text
    assert "\x1b" not in text
    # Every example is a command that there is.
    for name in re.findall(r"^ *(?:\S+ \| )?cowcloop (\w+)", text, re.MULTILINE):
        assert name in (*COMMANDS, "COMMAND")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_short_help_is_shorter(command: list[str]) -> None:
    short = cowcloop(*command, "-h").stdout.decode()
    long = cowcloop(*command, "--help").stdout.decode()
    # On one screen of 80 by 24 characters, the prompt below it; COLUMNS is 80 without a terminal.
    assert len(short.splitlines()) < min(24, len(long.splitlines()))
    assert all(line == line.rstrip() for line in (short + long).splitlines())
    assert f"{' '.join(['cowcloop', *command])} --help says more." in short
    assert "--tls-psk" not in short
    # Examples are set in, so that they are seen.
    assert re.search(r"^Examples:\n  \S", long, re.MULTILINE)


def test_without_a_command_there_is_help() -> None:
    done = cowcloop(expect=2)
    assert b"Usage" in done.stdout + done.stderr


def test_version() -> None:
    assert re.fullmatch(rb"cowcloop \d+\.\d+\.\d+\S*\n", cowcloop("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sreve", "i"], "No such command 'sreve': did you mean 'serve'"),
        (["cow", "repiar", "c"], "No such command 'repiar': did you mean 'repair'?"),
        (["cow", "pak", "c"], "did you mean 'pack' or 'unpack'?"),
        (["extract", "--spars"], "did you mean '--no-sparse' or '--sparse'?"),
        (["frobnicate"], "frobnicate"),
        (["serve"], "IMAGE"),
        (["serve", "i", "--redonly"], "--read-only"),
        (["serve", "i", "--cache", "12Q"], "12Q"),
        (["serve", "i", "--threads", "0"], "--threads"),
        (["serve", "i", "--tcp", "1", "-U", "s"], "exclude"),
        (["serve", "i", "--tcp", "70000"], "65535"),
        (["serve", "i", "--tcp", "1", "--device", "/dev/nbd0"], "--device"),
        (["serve", "i", "--repair"], "COW"),
        (["serve", "i", "c", "--repair", "--read-only"], "COW"),
        (["serve", "i", "--memory-limit", "1M"], "--memory-limit is for a :memory: COW"),
        (["serve", "i", "c", "--memory-limit", "1M"], "a :memory: COW"),
        (["serve", "i", ":memory:", "c"], ":memory:: give it last"),
        (["mount", "i", ":memory:", "c", ":memory:", "d"], ":memory:: give it last"),
        (["mount", "i", ":memory:", "d", "--memory-limit", "1M", "--read-only"], ":memory: COW"),
        (["serve", "i", "--size", "1M"], "--size is for a new COW"),
        (["attach", "i", "--sessions", "s", "--size", "1M"], "--size is for a new COW"),
        (["mount", "i", "c", "d", "--size", "1M", "--read-only"], "--size is for a new COW"),
        (["mount", "i", "d", "-o", "rw"], "-o rw: the device is read-only without a COW"),
        (["mount", "i", "c", "d", "--read-only", "-o", "a,rw"], "-o rw: the device is read-only"),
        (["serve", "i", "c", "--sessions", "d"], "COW"),
        (["serve", "i", "--session-quota", "1G"], "--sessions"),
        (["serve", "i", "--", "--pidfile=x"], "pidfile"),
        (["serve", "i", "--", "--pid-file", "x"], "pidfile"),
        (["serve", "i", "--", "--version"], "--version behind --: nbdkit"),
        (["serve", "i", "--", "--filter=log", "--dump-conf"], "--dump-conf behind --: nbdkit"),
        (["attach", "i", "--", "-V"], "serves nothing"),
        (["attach", "i", "--", "--help"], "serves nothing"),
        (["attach", "i", "--", "--dump-plugin"], "serves nothing"),
        (["attach", "i", "--", "-fv"], "-fv behind --: attach"),
        (["attach", "i", "--", "--foreground"], "background"),
        (["attach", "i", "--", "--exit-with-parent"], "background"),
        (["attach", "i", "--", "--run", "true"], "background"),
        (["serve", "i", "--", "-s"], "Unix socket or TCP"),
        (["serve", "i", "--", "--vsock"], "Unix socket or TCP"),
        (["serve", "i", "--", "-U", "s"], "cowcloop's own --unix"),
        (["attach", "i", "--", "--port=10809"], "cowcloop's own --tcp"),
        (["attach", "i", "--", "-o"], "newstyle"),
        (["serve", "i", "c", "c"], "c: given twice"),
        (["serve", "i", "i"], "i: the image is given as a cowfile"),
        (["attach", "i", "c", "./i"], "./i: the image is given as a cowfile"),
        (["extract", "i", "i", "o"], "i: the image is given as a cowfile"),
        (["map", "i", "i"], "i: the image is given as a cowfile"),
        (["attach", "i", "c", "d", "./c"], "./c: given twice"),
        (["mount", "i", "c", "c", "d"], "c: given twice"),
        (["extract", "i", "c", "c", "o"], "c: given twice"),
        (["commit", "i", "c", "c", "o"], "c: given twice"),
        (["map", "i", "c", "c"], "c: given twice"),
        (["map", "i", "--png", "o", "--svg", "./o"], "--svg"),
        (["commit", "i", "c", "o", "--rebase", "./o"], "--rebase"),
        (["serve", "i", "c", "--log", "c"], "--log"),
        (["attach", "i", "c", "--log", "./i"], "--log"),
        (["mount", "i", "c", "d", "--log", "c"], "--log"),
        (["attach", "i", "--exit-with-parent"], "--exit-with-parent"),
        (["detach"], "--all"),
        (["detach", "uri", "--all"], "--all"),
        (["sync", "uri", "--all"], "--all"),
        (["mount", "i"], "DIR"),
        (["mount", "i", "c", "d", "--via", "magic"], "fuse2fs"),
        (["mount", "i", "c", "d", "--via", "fuse", "--device", "/dev/nbd0"], "--via fuse"),
        (["mount", "i", "c", "d", "--partition", "0"], "--partition"),
        (["mount", "i", "d", "--repair"], "COW"),
        (["umount"], "DIR"),
        (["umount", "a", "b"], "b"),
        (["extract", "i"], "OUT"),
        (["create", "i"], "OUT"),
        (["create", "i", "o", "--level", "0"], "best"),
        (["create", "i", "o", "--level", "10"], "best"),
        (["create", "i", "o", "--codec", "xz"], "v4"),
        (["create", "i", "o", "--footer"], "v4"),
        (["create", "i", "o", "--block-size", "0"], "multiple of 512"),
        (["create", "i", "o", "--block-size", "1000"], "multiple of 512"),
        (["create", "i", "o", "--block-size", "1T"], "64.0 MiB"),
        (["commit", "i", "c", "o", "--block-size", "1T"], "64.0 MiB"),
        (["info"], "FILE"),
        (["info", ""], "empty"),
        (["serve", ""], "IMAGE"),
        (["serve", "i", ""], "COW"),
        (["serve", "i", "-U", ""], "--unix"),
        (["extract", "i", ""], "OUT"),
        (["mount", "i", ""], "DIR"),
        (["detach", ""], "empty"),
        (["info", "a", "b"], "b"),
        (["verify", "i", "--threads", "x"], "x"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], says: str) -> None:
    done = cowcloop(*arguments, expect=2)
    assert done.stdout == b""
    line = one_line(done.stderr.decode(), says)
    assert "--help" in line


def test_more_memory_than_there_is(image: Path) -> None:
    """A cache is bounded by what the image can need, so that it may be harmless."""
    for option in ("--cache", "--memory-limit"):
        arguments = ("attach", image, ":memory:", option, "1000T")
        done = cowcloop(*arguments)
        line = one_line(done.stderr.decode(), ("warning", f"{option} 1000.0 TiB", "memory"))
        assert os.fspath(image) not in line
        assert cowcloop(*arguments, "--quiet").stderr == b""
        assert cowcloop("attach", image, ":memory:", option, "1M").stderr == b""


def test_common_options_before_and_behind_the_command() -> None:
    for arguments in (["-v", "list"], ["list", "-v"]):
        assert b"no device" in cowcloop(*arguments).stderr
    assert cowcloop("list").stderr == b""


def test_no_colour_but_on_a_terminal() -> None:
    """Piped, and with NO_COLOR, and on a dumb terminal."""
    for env in ({"NO_COLOR": "1", "FORCE_COLOR": ""}, {"TERM": "dumb"}):
        assert b"\x1b" not in cowcloop("--help", env=env).stdout


def test_an_unexpected_error_is_one_line(tmp_path: Path) -> None:
    """A fault of ours is told in a line, and --debug shows where."""
    (tmp_path / "sitecustomize.py").write_text(
        "import cowcloop.registry\n"
        "def entries():\n"
        "    raise RuntimeError('a fault\\nof ours')\n"
        "cowcloop.registry.entries = entries\n"
    )
    env = finding(tmp_path)
    done = cowcloop("list", expect=1, env=env)
    one_line(done.stderr.decode(), ("internal error", r"RuntimeError: a fault\nof ours", "--debug"))
    shown = run(cowcloop_path(), "--debug", "list", expect=1, env=env)
    assert b"Traceback" in shown.stderr


def test_completion_knows_the_commands() -> None:
    env = {"_COWCLOOP_COMPLETE": "bash_complete", "COMP_WORDS": "cowcloop s", "COMP_CWORD": "1"}
    assert b"serve" in run(cowcloop_path(), env=env).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_each_shell(shell: str) -> None:
    assert b"COWCLOOP_COMPLETE" in cowcloop("--show-completion", shell).stdout


def test_a_file_that_may_not_be_read(root: None, runtime: Path) -> None:
    """It is the system that says no, and not the command line that is wrong."""
    secret = runtime / "secret"
    secret.touch(0o000)
    runtime.chmod(0o755)
    users.require()
    for words in (["info"], ["verify"], ["map"], ["extract", "-"]):
        done = run(*users.as_nobody(cowcloop_path(), words[0], secret, *words[1:]), expect=1)
        one_line(done.stderr.decode(), ("secret", "Permission denied"))
