"""nbdkit's messages, in our words: level and text without its prefixes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# "nbdkit: [CONTEXT: ][LEVEL: ]text"; the context is the plugin or filter and a connection number.
_LINE = re.compile(
    r"nbdkit: (?:(?P<context>[\w.-]+(?:\[\d+\])?): )?"
    r"(?:(?P<level>debug|warning|error): )(?P<text>.*)"
)

ADDRESS_IN_USE = "another server listens there"

# Option errors come from getopt, with the program's path.
_PROGRAM = re.compile(r"^(?:/\S*/)?nbdkit: ")

_REWORDED = (
    (
        re.compile(r"bind: (?P<where>.*): Address already in use"),
        rf"\g<where>: {ADDRESS_IN_USE}: choose another address",
    ),
    (
        re.compile(r"bind: (?P<where>.*): Permission denied"),
        r"\g<where>: no permission to listen there: choose another address",
    ),
    (
        re.compile(r"bind: (?P<where>.*): Cannot assign requested address"),
        r"\g<where> is not an address of this machine",
    ),
)


@dataclass(frozen=True)
class Message:
    """One line: `level` is debug, warning or error."""

    level: str
    text: str


def translate(line: str, typed: Mapping[str, str]) -> Message | None:
    """One line of nbdkit's standard error; None for an empty one.

    `typed` maps the absolute paths that nbdkit was given to what the user wrote.
    """
    line = line.rstrip()
    if not line:
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        level, text = "error", _PROGRAM.sub("", line)
    else:
        level, text = match["level"], match["text"]
    for pattern, words in _REWORDED:
        text = pattern.sub(words, text)
    # The longest first: one path may begin with another.
    for path in sorted(typed, key=len, reverse=True):
        text = text.replace(path, typed[path])
    return Message(level, text)
