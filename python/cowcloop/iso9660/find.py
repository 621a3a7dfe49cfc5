"""The way to a file in an ISO 9660 image."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from cowcloop.errors import ImageFormatError, InvalidInputError, NotFoundError, UnsupportedError
from cowcloop.iso9660.disc import MOST_EXTENTS, Disc, Entry, open_disc, without_version
from cowcloop.iso9660.medium import shown
from cowcloop.part import Place

# Names of a directory that a misspelt one is compared with, and those that are told.
_MOST_NAMES = 1000
_TOLD = 4


def pieces(path: Place, inside: str) -> tuple[tuple[int, int], ...]:
    """Offset and length, in bytes, of each piece of the file at a path in an ISO 9660 image.

    A name is looked for as Rock Ridge, Joliet and plain ISO 9660 have it, then without regard to
    upper and lower case, as Linux shows plain names in lower case.
    """
    whole = f"{shown(str(path))}:{shown(inside)}"
    names = [name for name in inside.split("/") if name not in ("", ".")]
    if ".." in names:
        raise InvalidInputError(f"{whole}: write the path without '..'")
    with open_disc(path) as disc:
        for exactly in (True, False):
            for root in disc.roots:
                entry = _walk(root, names, exactly, whole)
                if entry is not None:
                    return _pieces_of(disc, entry, whole)
        raise _not_found(disc.best, names, whole)


def _walk(root: Entry, names: list[str], exactly: bool, whole: str) -> Entry | None:
    entry = root
    for depth, name in enumerate(names):
        found = _pick(entry.entries(), name, exactly) if entry.directory else None
        if found is None:
            return None
        entry = found
        if entry.link is not None:
            place = shown("/" + "/".join(names[: depth + 1]))
            message = f"{place} is a symbolic link to {shown(entry.link)}: name the file itself"
            raise InvalidInputError(f"{whole}: {message}")
    return entry


def _pick(entries: Iterable[Entry], name: str, exactly: bool) -> Entry | None:
    """The entry of this name: Rock Ridge's comes before the plain one, that before other cases."""
    plain: Entry | None = None
    similar: Entry | None = None
    folded = {name.casefold(), without_version(name).casefold()}
    for entry in entries:
        if entry.name == name:
            return entry
        if plain is None and entry.plain == name:
            plain = entry
        elif similar is None and folded & {entry.name.casefold(), entry.plain.casefold()}:
            similar = entry
    return plain if exactly else plain or similar


def _pieces_of(disc: Disc, entry: Entry, whole: str) -> tuple[tuple[int, int], ...]:
    if entry.directory:
        holds = _some(found.name for found in entry.entries())
        raise InvalidInputError(f"{whole}: this is a directory: name a file in it ({holds})")
    if entry.interleaved:
        message = "it is stored interleaved: mount the image, or copy the file out of it"
        raise UnsupportedError(errno.EOPNOTSUPP, f"{whole}: {message}", whole)
    if entry.compressed:
        message = "zisofs has compressed it: mount the image, or copy the file out of it"
        raise UnsupportedError(errno.EOPNOTSUPP, f"{whole}: {message}", whole)
    extents = disc.extents(entry)
    if not extents:
        message = f"its extents are not complete, or more than {MOST_EXTENTS}"
        raise ImageFormatError(f"{whole}: {message}: copy the disc again")
    found: list[tuple[int, int]] = []
    for offset, length in extents:
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        elif length:
            found.append((offset, length))
    if not found:
        raise ImageFormatError(f"{whole}: the file is empty: it holds no image")
    if not disc.lies_within(found):
        message = f"lies beyond the end of {disc.path}, at {disc.size} bytes: copy that again"
        raise ImageFormatError(f"{whole}: {message}")
    return tuple(found)


def _not_found(root: Entry, names: list[str], whole: str) -> NotFoundError:
    """What there is instead, where the path ends."""
    directory, reached, hint = root, "", ""
    for name in names:
        found = _pick(directory.entries(), name, exactly=False)
        if found is not None and found.directory:
            directory, reached = found, f"{reached}/{found.name}"
            continue
        held = [entry.name for entry in islice(directory.entries(), _MOST_NAMES)]
        near = get_close_matches(name, held, n=2, cutoff=0.5)
        if found is not None:
            hint = f"{reached}/{found.name} is a file"
        elif near:
            hint = f"did you mean {' or '.join(f'{reached}/{each}' for each in near)}?"
        else:
            hint = f"{reached or '/'} holds {_some(held)}"
        break
    message = f"{whole}: no such file in the ISO image: {shown(hint)}"
    return NotFoundError(errno.ENOENT, message, whole)


def _some(names: Iterable[str]) -> str:
    """A few of the names, and whether there are more."""
    told = list(islice(names, _TOLD + 1))
    words = ", ".join(shown(name) for name in told[:_TOLD])
    return (words + ", ..." if len(told) > _TOLD else words) or "nothing"
