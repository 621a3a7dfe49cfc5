"""Standard streams that are closed, full or gone: one line, and nothing goes astray."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support import cloop
from support.programs import Argument, cowcloop, cowcloop_path, one_line, run
from support.server import listed

PLAIN = cloop.PLAIN


def closing(
    redirections: str, *arguments: Argument, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """A command with a shell's redirections, such as ``>&-``."""
    script = f'"$@" {redirections}'
    return run("bash", "-c", script, "bash", cowcloop_path(), *arguments, expect=None, stdin=stdin)


@pytest.mark.parametrize(
    "words",
    [
        ["info", "i"],
        ["info", "i", "--json"],
        ["map", "i"],
        ["verify", "i"],
        ["extract", "i", "-"],
        ["create", "i", "-"],
        ["cow", "pack", "c", "-"],
        ["serve", "i"],
        ["attach", "i"],
        ["--version"],
        ["--help"],
        ["info", "--help"],
        ["-h"],
        ["--show-completion", "bash"],
    ],
    ids=" ".join,
)
def test_a_result_that_cannot_be_written(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    image.rename("i")
    cowcloop("detach", cowcloop("attach", "i", "c").stdout.decode().strip())
    files = sorted(tmp_path.iterdir())
    for redirection, says in ((">&-", "it is closed"), (">/dev/full", "No space left")):
        done = closing(redirection, *words)
        one_line(done.stderr.decode(), ("standard output: ", says))
        assert done.returncode == 1
        # Standard error has no reader either.
        assert closing(f"{redirection} 2{redirection}", *words).returncode == 1
    assert listed() == []
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize("words", [["create"], ["cow", "unpack"]], ids=" ".join)
def test_a_closed_input(tmp_path: Path, words: list[str]) -> None:
    done = closing("<&-", *words, "-", tmp_path / "out")
    one_line(done.stderr.decode(), "standard input: it is closed")
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_what_needs_no_stream_works_without(image: Path, tmp_path: Path) -> None:
    """No file gets the number of a stream, and so neither messages nor another's input."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for redirections in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        assert closing(redirections, "-v", "extract", image, plain).returncode == 0
        assert plain.read_bytes() == PLAIN
        assert closing(redirections, "-v", "create", plain, packed).returncode == 0
        cowcloop("verify", packed)
    done = closing("<&- 2>&-", "-vv", "attach", image, tmp_path / "cow")
    uri = done.stdout.decode().strip()
    assert uri.startswith("nbd")
    assert closing("<&- >&- 2>&-", "detach", uri).returncode == 0
    assert cowcloop("info", tmp_path / "cow").stderr == b""
    assert listed() == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_the_output_has_no_letters_for(
    image: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """It is shown with backslashes; the bytes of one that is not text stay as they are."""
    monkeypatch.chdir(image.parent)
    name = os.fsdecode("caf\u00e9 \u2603 ".encode() + b"\xff")
    image.rename(name)
    shown = "caf\u00e9 \u2603 ".encode(encoding, "backslashreplace") + b"\xff"
    env = {"PYTHONIOENCODING": encoding}
    done = cowcloop("verify", name, env=env)
    assert done.stdout.startswith(shown + b": all ")
    assert done.stderr == b""
    done = run(cowcloop_path(), "verify", f"no {name}", expect=1, env=env)
    one_line(done.stderr.decode(encoding), "no such file")


def test_an_error_with_no_place_to_go(tmp_path: Path) -> None:
    for redirection in ("2>&-", "2>/dev/full"):
        assert closing(redirection, "info", tmp_path / "none").returncode == 1
        assert closing(redirection, "info").returncode == 2


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    image = tmp_path / "i"
    image.write_bytes(bytes(1 << 20))
    for command in (["info", image], ["--help"], ["extract", image, "-"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [cowcloop_path(), *command], stdout=writer, stderr=subprocess.PIPE, check=False
        )
        os.close(writer)
        assert done.returncode == 1
        assert done.stderr == b""
