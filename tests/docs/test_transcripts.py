"""The transcripts of the pages are run, and what they show is what comes out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from support import mounts, pages, programs, workers
from support.programs import PATIENCE, ROOT, cowcloop_path, program

_MARK = "\x1e"

PAGES = [path for path in pages.pages() if pages.read(path).steps()]


def _check(need: str, request: pytest.FixtureRequest) -> None:
    if need in {"root", "loop", "fuse"}:
        request.getfixturevalue(need)
    elif need == "processes":
        workers.require_processes()
    elif need == "fuse2fs" and os.geteuid() != 0:
        mounts.require_fuse2fs_that_writes()
    else:
        name, _, package = need.partition("=")
        program(name, package or name)


def run_steps(steps: list[pages.Step], folder: Path) -> list[tuple[int, list[str]]]:
    """Runs the commands one after the other in one shell; code and output of each."""
    script = "".join(
        f"{step.command}\n__code=$?; printf '{_MARK}%s\\n' \"$__code\"\n" for step in steps
    )
    path = [str(Path(cowcloop_path()).parent), os.environ["PATH"], "/usr/sbin", "/sbin"]
    # The output goes to a file: a server in the background would keep a pipe open.
    with (folder.parent / "output").open("w+") as output:
        subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "PATH": os.pathsep.join(path), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        )
        output.seek(0)
        text = output.read()
    # What stands before a mark is a command's output; the line of the mark is its code.
    found: list[tuple[int, list[str]]] = []
    rest = text
    for _ in steps:
        before, mark, rest = rest.partition(_MARK)
        if not mark:
            found.append((-1, before.splitlines()))
            break
        code, _, rest = rest.partition("\n")
        found.append((int(code), before.splitlines()))
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_page(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    page = pages.read(path)
    for need in page.needs:
        _check(need, request)
    folder = tmp_path / "here"
    folder.mkdir()
    steps = page.steps()
    for step, (code, found) in zip(steps, run_steps(steps, folder)):
        where = f"{page.name}:{step.line}: {step.command}"
        shown = "\n".join(found)
        assert (code != 0) == step.fails, f"{where}\nexit code {code}\n{shown}"
        assert pages.matches(step.expected, found), (
            f"{where}\nprints\n{shown}\nthe page shows\n" + "\n".join(step.expected)
        )
        programs.mannered(shown)


def test_a_wrong_transcript_is_found(tmp_path: Path) -> None:
    text = "```console\n$ echo one two\none  two\n$ echo a; echo b; echo end\n...\nend\n```\n"
    page = tmp_path / "page.md"
    page.write_text(text)
    steps = pages.read(page).steps()
    (code, first), (_, second) = run_steps(steps, tmp_path)
    assert code == 0
    assert pages.matches(steps[0].expected, first)
    assert pages.matches(steps[1].expected, second)
    assert not pages.matches(["one three"], first)
    assert not pages.matches(["a", "end"], second)
    assert not pages.matches([], first)
    assert pages.matches(["o... two"], first)


@pytest.mark.parametrize("path", pages.pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shell_blocks_are_right(path: Path) -> None:
    """Blocks that only a person runs have a shell's syntax, and options that there are."""
    bash = program("bash", "bash")
    for block in pages.read(path).blocks:
        if block.language != "sh":
            continue
        text = "\n".join(block.lines) + "\n"
        done = subprocess.run([bash, "-n"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{path}:{block.line}: {done.stderr}"
    for block in pages.read(path).blocks:
        if block.language in {"sh", "console"}:
            for line in block.lines:
                _check_options(f"{path}:{block.line}: {line}", line.removeprefix("$ "))


def _check_options(where: str, line: str) -> None:
    """Every command and option that a line gives cowcloop exists."""
    from cowcloop.cli.app import app

    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        words = list(lexer)
    except ValueError:  # a quoted text of several lines
        return
    for at, word in enumerate(words):
        if word != "cowcloop" or (at and words[at - 1] in {"install", "cd", "clone"}):
            continue
        command: object = app
        for argument in words[at + 1 :]:
            if argument in {"|", "&&", ";", "&", ")", "--", ">", "||"}:
                break
            find = getattr(command, "get_command", None)
            if argument.startswith("-"):
                option = argument.split("=")[0]
                import click

                assert isinstance(command, click.Command)
                with click.Context(command) as context:
                    known = {
                        o for p in command.get_params(context) for o in p.opts + p.secondary_opts
                    }
                assert option in known or len(argument) == 1, f"{where}: no option {option}"
            elif find is not None and argument.isidentifier():
                command = find(None, argument)
                assert command is not None, f"{where}: no command {argument}"


_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def _pasteable(where: str, text: str) -> None:
    """zsh takes a # for a word, and looks for files at a ? that is not quoted."""
    bare = _QUOTED.sub("", text)
    assert re.search(r"(^|\s)#", bare, re.MULTILINE) is None, f"{where}: a comment"
    assert "?" not in bare, f"{where}: an address without quotes"


@pytest.mark.parametrize("path", pages.pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_can_be_pasted_into_any_shell(path: Path) -> None:
    page = pages.read(path)
    for block in page.blocks:
        if block.language == "sh":
            _pasteable(f"{path}:{block.line}", "\n".join(block.lines))
    for step in page.steps():
        _pasteable(f"{path}:{step.line}", step.command)


def test_an_address_without_quotes_and_a_comment_are_found() -> None:
    _pasteable("", "nbdinfo 'nbd+unix:///?socket=s' \"a # b\"")
    for text in ("nbdinfo nbd+unix:///?socket=s", "ls # all", "# all\nls"):
        with pytest.raises(AssertionError):
            _pasteable("", text)
