"""Rock Ridge: names, links and relocated directories behind a directory record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from cowcloop.errors import ImageFormatError
from cowcloop.iso9660.medium import SECTOR, Medium

# What a name or a link's target may have, in bytes; more is cut off.
_LONGEST = 255
# What CD-ROM XA may put before Rock Ridge in the root's first record.
_XA = 14
# Areas that a record may continue in, each in another place.
_MOST_AREAS = 32

_CONTINUED = 0x01
_ROOT = 0x08
_PARENT = 0x04
_CURRENT = 0x02


@dataclass
class RockRidge:
    """What was found behind one record."""

    name: str = ""
    link: str | None = None
    #: block of the directory that really is here
    child: int | None = None
    #: shown where its parent points to it
    relocated: bool = False
    #: by zisofs
    compressed: bool = False


def start(area: bytes) -> int | None:
    """Bytes to skip in every record's area, from the root's first; None: no Rock Ridge."""
    # SP, its length 7, version 1, two check bytes
    for at in (0, _XA):
        if area[at : at + 6] == b"SP\x07\x01\xbe\xef" and len(area) > at + 6:
            return area[at + 6]
    return None


def parse(area: bytes, medium: Medium, block: int) -> RockRidge:
    """What a record's area and its continuations say."""
    found = RockRidge()
    name = b""
    link = _Link()
    for signature, data in _fields(area, medium, block):
        if signature == b"NM" and data and not data[0] & (_CURRENT | _PARENT):
            name = (name + data[1:])[:_LONGEST]
        elif signature == b"SL" and data:
            link.add(data[1:])
        elif signature == b"CL" and len(data) >= 4:
            found.child = int.from_bytes(data[:4], "little")
        elif signature == b"RE":
            found.relocated = True
        elif signature == b"ZF":
            found.compressed = True
    found.name = os.fsdecode(name)
    found.link = link.text()
    return found


def _fields(area: bytes, medium: Medium, block: int) -> Iterator[tuple[bytes, bytes]]:
    """Signature and data of each field, continuation areas followed."""
    for _ in range(_MOST_AREAS):
        following: tuple[int, int] | None = None
        while len(area) >= 4:
            size = area[2]
            if size < 4 or size > len(area) or area[:2] == b"ST":
                break
            data = area[4:size]
            if area[:2] == b"CE" and len(data) >= 24:
                # Each number is there in both byte orders.
                place, offset, length = (
                    int.from_bytes(data[at : at + 4], "little") for at in (0, 8, 16)
                )
                following = (place * block + offset, min(length, SECTOR))
            yield area[:2], data
            area = area[size:]
        if following is None:
            return
        area = medium.read(*following)
    raise ImageFormatError(f"{medium.path}: damaged ISO 9660 image: a name goes on without end")


class _Link:
    """A symbolic link's target, put together from its components."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._joined = False
        self._any = False

    def add(self, components: bytes) -> None:
        """One SL field's components: flags, length, text."""
        self._any = True
        while len(components) >= 2:
            flags, size = components[0], components[1]
            text = components[2 : 2 + size]
            if flags & _ROOT:
                text = b""
            elif flags & _PARENT:
                text = b".."
            elif flags & _CURRENT:
                text = b"."
            if self._joined and self._parts:
                self._parts[-1] += text
            else:
                self._parts.append(text)
            self._joined = bool(flags & _CONTINUED)
            components = components[2 + size :]

    def text(self) -> str | None:
        """The target; None where there was no SL field."""
        if not self._any:
            return None
        target = b"/".join(self._parts) or b"/"
        return os.fsdecode(target[:_LONGEST])
