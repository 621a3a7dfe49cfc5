#!/usr/bin/env python3
"""Makes docs/reference.md and the manual page cowcloop(1) from the command line's own help.

Run it after a change of a command or option: `.venv/bin/python scripts/make_reference.py`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
from cowcloop.cli import helptext
from cowcloop.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
MANUAL = ROOT / "docs/man/data/share/man/man1/cowcloop.1"
#: The parts of the manual page that no help text has.
FRAME = ROOT / "docs/cowcloop.1.in"
REFERENCE = ROOT / "docs" / "reference.md"

_COMMON = {"verbose", "quiet", "short_help", "help"}


def commands(group: click.Group, words: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group with its name, a group's before its own commands."""
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield f"{words} {name}", command
            if isinstance(command, click.Group):
                yield from commands(command, f"{words} {name}")


def usage(name: str, command: click.Command) -> str:
    """`cowcloop create [OPTIONS] SRC OUT`."""
    with click.Context(command) as context:
        return " ".join([name, *command.collect_usage_pieces(context)])


def options(command: click.Command) -> Iterator[tuple[str, str]]:
    """The options as typed, and their effect; those of all commands are left out."""
    with click.Context(command) as context:
        for parameter in command.get_params(context):
            if isinstance(parameter, click.Option) and parameter.name not in _COMMON:
                record = parameter.get_help_record(context)
                if record is not None:
                    yield _plain(*record)


def _plain(left: str, right: str) -> tuple[str, str]:
    """In the words of --help: without click's signs for choices and ranges."""
    left = re.sub(r"\[([^\[\]]*\|[^\[\]]*)\]", r"\1", left)
    right = re.sub(r"\.? *\[(\d+)<=x<=(\d+)\]", r" (\1 to \2).", right)
    right = re.sub(r" *\[x>=\d+\]", "", right)
    right = re.sub(r"\.? *\[default: (\w+); (\d+)<=x<=(\d+)\]", r" (\2 to \3, default: \1).", right)
    return left, right


def markdown() -> str:
    """The reference as a page."""
    text = [
        "# Reference",
        "",
        "Made from the program's own help by `scripts/make_reference.py`. Every command takes",
        "`-v` (say more), `-q` (no warnings, no progress), `-h` (short help) and `--help` (all of",
        "it), too.",
        "",
        "Sizes are bytes, or a number with K, M, G or T (powers of 1024). `-` is standard input or",
        "output. Exit codes: 0 done; 1 the input, the medium or the system refused; 2 the command",
        "line is wrong; 130 interrupted by Ctrl-C, with nothing half-made left. An interrupted",
        "`cow merge` is completed by running it again.",
        "",
    ]
    for name, command in commands(app, "cowcloop"):
        text += [f"## {name}", "", "```text", usage(name, command), "```", ""]
        for kept, lines in helptext.paragraphs(command):
            if not kept:
                text += [*lines, ""]
                continue
            title = lines[0].strip()
            block = lines[1:] if title.endswith(":") else lines
            if title.endswith(":"):
                text += [title, ""]
            text += ["```text", *inspect.cleandoc("\n".join(["", *block])).splitlines(), "```", ""]
        rows = [f"| `{_cell(left)}` | {_cell(right)} |" for left, right in options(command)]
        if rows:
            text += ["| option | |", "|---|---|", *rows, ""]
    return "\n".join(line.rstrip() for line in text).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def manual() -> str:
    """The manual page in roff: the frame, with the commands in its place."""
    text = []
    for name, command in commands(app, "cowcloop"):
        text += [".SS " + _roff(usage(name, command))]
        for at, (kept, lines) in enumerate(helptext.paragraphs(command)):
            if at:
                text.append(".PP")
            text += [".nf", *map(_roff, lines), ".fi"] if kept else map(_roff, lines)
        for left, right in options(command):
            text += [".TP", f"\\fB{_roff(left)}\\fR", _roff(right)]
    return FRAME.read_text(encoding="utf-8").replace("@COMMANDS@", "\n".join(text))


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    REFERENCE.write_text(markdown(), encoding="utf-8")
    MANUAL.write_text(manual(), encoding="utf-8")
