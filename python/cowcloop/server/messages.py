"""What nbdkit itself says, in our words: level and text without its prefixes.

The plugin tells its events elsewhere (`events`): its lines are among nbdkit's only where it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

ADDRESS_IN_USE = "another server listens there"

# "nbdkit: [CONTEXT: ]LEVEL: text"; the context is the plugin or filter and a connection number.
# A name that begins with @ is what an initramfs gives it (units.argv0).
_LINE = re.compile(
    r"@?nbdkit: (?:(?P<context>[\w.-]+(?:\[\d+\])?): )?"
    r"(?P<level>debug|warning|error): (?P<text>.*)"
)

# What nbdkit says before it has its own way to say it: the program's name, or nothing.
_PROGRAM = re.compile(r"(?:/\S*/|@)?nbdkit: ")

# The plugin's warnings: nbdkit has errors and debug messages only.
_WARNING = "warning: "

# A client that goes away without a word is no error of the server's.
_CLIENT_GONE = re.compile(r".*: (?:Connection reset by peer|Broken pipe)")

# {0} is where it was to listen. Its line "unable to bind" comes before the one with the reason.
_REWORDED = (
    (r"(?:bind|socket error): (?:.*: )?Address already in use", "{0}: " + ADDRESS_IN_USE),
    (r"bind: (?:.*: )?(?P<why>.*)", "{0}: {why}"),
    (r"getaddrinfo: (?P<host>.*): \d+: (?P<why>.*)", "{host}: {why}"),
    (r"unable to bind to any TCP/IP sockets", ""),
)


@dataclass(frozen=True)
class Message:
    """One line: `level` is debug, warning or error."""

    level: str
    text: str


def translate(line: str, typed: Mapping[str, str], where: str) -> Message | None:
    """One line of nbdkit's standard error; None for one that says nothing.

    `typed` maps the absolute paths that nbdkit was given to what the user wrote; `where` is the
    address at which it listens.
    """
    line = line.rstrip()
    match = _LINE.fullmatch(line)
    if match is None:
        level, text = "error", _PROGRAM.sub("", line, count=1)
        for pattern, words in _REWORDED:
            found = re.fullmatch(pattern, text)
            if found is not None:
                text = words.format(where, **found.groupdict())
                break
    else:
        level, text = match["level"], match["text"]
        if _CLIENT_GONE.fullmatch(text):
            level = "debug"
        elif text.startswith(_WARNING):
            level, text = "warning", text[len(_WARNING) :]
    return Message(level, as_typed(text, typed)) if text else None


def as_typed(text: str, typed: Mapping[str, str]) -> str:
    """A message with the paths in it as the user wrote them."""
    # The longest first: one path may begin with another.
    for path in sorted(typed, key=len, reverse=True):
        text = text.replace(path, typed[path])
    return text
