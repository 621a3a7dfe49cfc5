"""The output of commands: results to standard output, everything else to standard error."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cowcloop.cli import streams

if TYPE_CHECKING:
    from cowcloop.server.messages import Message


@dataclass
class Levels:
    """How much the program prints: set once by the options that every command has."""

    verbose: int = 0
    quiet: bool = False
    debug: bool = False


@dataclass
class State:
    """The settings that the main program hands to the commands."""

    nbdkit_args: tuple[str, ...] = field(default=())


levels = Levels()


def debug_wanted() -> bool:
    """Whether an unexpected error shows its traceback."""
    return levels.debug or bool(os.environ.get("COWCLOOP_DEBUG"))


def error(text: str) -> None:
    """One line that says what failed."""
    _say(text)


def interrupted(text: str) -> None:
    """Like error(), but below the line on which a terminal shows the key that was pressed."""
    _say(text, "\n" if sys.stderr.isatty() else "")


def warning(text: str) -> None:
    """One line of warning; not with --quiet."""
    if not levels.quiet:
        _say(f"warning: {text}")


def done(text: str) -> None:
    """One line that says that something is done; not with --quiet."""
    if not levels.quiet:
        _say(text)


def note(text: str) -> None:
    """One line about what was done; only with --verbose."""
    if levels.verbose:
        _say(text)


def report(message: Message) -> None:
    """One message of a server."""
    if message.level == "error":
        error(message.text)
    elif message.level == "warning":
        warning(message.text)
    else:
        note(message.text)


def _say(text: str, before: str = "") -> None:
    line = f"{before}cowcloop: {printable(text.strip())}\n"
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except (OSError, ValueError):
        # Standard error has no reader; the exit code still tells.
        pass


def printable(text: str) -> str:
    """Text in which control characters are shown: a name must not draw on the terminal.

    The bytes of a name that is not UTF-8 stay as they are.
    """
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in text
    )


def result(text: str) -> None:
    """A result, at once: a program may wait for it in a pipe."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno == errno.EBADF:
            raise streams.closed("standard output") from None
        error.filename = "standard output"
        raise


def line(text: str) -> None:
    """A result for readers, which is one line whatever names are in it."""
    result(printable(text))


def result_json(document: Any) -> None:
    """One JSON document, in ASCII: file names need not be text."""
    result(json.dumps(document, indent=2))


def outcome(as_json: bool, path: str, done: dict[str, Any], text: str) -> None:
    """Report of a file made at a path: a document, or with --verbose a line."""
    if as_json:
        result_json({"path": path, **done})
    else:
        note(f"{path}: {text}")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: fitted to the width of a terminal, plain columns elsewhere."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *rows)]
        for row in (columns, *rows):
            padded = (cell.ljust(width) for cell, width in zip(row, widths))
            result("  ".join(padded).rstrip())
        return
    from rich.console import Console

    from cowcloop.cli.tables import fitting

    out = Console()
    out.print(fitting(columns, rows, out, left=len(columns)))


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair per line."""
    width = max(len(name) for name, _ in pairs) + 1
    for name, value in pairs:
        line(f"{name + ':':<{width}} {value}")
