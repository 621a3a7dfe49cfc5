"""Names of files: which of them lead to the same file, and :memory:, which names none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .errors import InvalidInputError

if TYPE_CHECKING:
    from _typeshed import StrPath

# "rb" and the like; the words in any order.
_MODE = re.compile(r"[bt+]{0,2}[rwax][bt+]{0,2}")

#: In the place of a cowfile: an overlay that lives in memory.
MEMORY = ":memory:"


def same(one: StrPath, other: StrPath) -> bool:
    """Whether two names lead to one file, or would once it is made."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def among(path: StrPath, others: Iterable[StrPath]) -> bool:
    """Whether a name leads to one of the other files."""
    return any(same(path, other) for other in others)


def refuse_mode(cows: Sequence[object]) -> None:
    """InvalidInputError where a cowfile is named like a mode of Python's own open()."""
    for cow in cows:
        if isinstance(cow, str) and _MODE.fullmatch(cow):
            raise InvalidInputError(
                f"{cow!r} looks like a mode, and what follows the image is a cowfile: leave it "
                f"out (read_only=True to forbid writing), or name the cowfile './{cow}'"
            )


def check_cows(image: StrPath, cows: Sequence[StrPath]) -> None:
    """InvalidInputError when cowfiles cannot lie on an image and on one another like this.

    One that is there twice would wait for itself; one above an overlay in memory could never be
    used again, without what lay below it.
    """
    for cow in cows:
        if image and os.fspath(cow) != MEMORY and same(cow, image):
            raise InvalidInputError(
                f"{os.fspath(cow)}: the image is given as a cowfile, too, and an image is never "
                "written: name another file for the cowfile"
            )
    names = [os.fspath(cow) for cow in cows]
    if MEMORY in names and any(name != MEMORY for name in names[names.index(MEMORY) :]):
        raise InvalidInputError(f"{MEMORY}: give it last: what lies on it would be lost with it")
    for number, cow in enumerate(cows):
        if os.fspath(cow) != MEMORY and among(cow, cows[:number]):
            raise InvalidInputError(f"{os.fspath(cow)}: given twice: name each cowfile once")
