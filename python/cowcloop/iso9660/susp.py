"""System Use areas (SUSP, IEEE P1281), tidied up for pycdlib.

pycdlib refuses a whole disc for one entry that it does not know, such as zisofs's ZF. A program
that reads a disc has to ignore such entries, so they become padding, which keeps every length.
"""

from __future__ import annotations

#: The entry of a file that zisofs has compressed; padding in its place begins with it.
ZISOFS = b"ZF"

# The entries that pycdlib knows in every supported version.
_KNOWN = frozenset(b"SP RR CE PX ER ES PN SL NM CL PL TF SF RE".split())
# Padding, the end of the area, attributes (AL, which xorriso writes), and what the reader looks
# at itself: not worth a message.
_SILENT = frozenset((b"PD", b"ST", b"AL", ZISOFS))
_END = b"ST"
_HEAD = 4
# Bytes of padding in one entry.
_MOST = 200

# Of a directory record: the fixed part; the byte with the length of the name behind it.
_RECORD = 33
_NAME_LENGTH = 32
# Of the CD-XA attributes that some discs have before the area: their length and their mark.
_XA = 14
_XA_MARK = slice(6, 8)


def in_record(record: bytes) -> tuple[bytes, set[bytes]]:
    """A directory record with its area tidied up, and the names of unknown entries."""
    if len(record) <= _RECORD or record[0] != len(record):
        return record, set()
    start = _RECORD + record[_NAME_LENGTH]
    start += start % 2
    if record[start:][_XA_MARK] == b"XA":
        start += _XA
    area, unknown = in_area(record[start:])
    return record[:start] + area, unknown


def in_area(area: bytes) -> tuple[bytes, set[bytes]]:
    """An area of its own, and the names of unknown entries; as it is if it is no such area."""
    entries = _split(area)
    others = [entry for entry in entries if entry[:2] not in _KNOWN]
    if not others:
        return area, set()
    unknown = {entry[:2] for entry in others} - _SILENT
    # The known ones come first: by its first entry pycdlib knows that a record has any.
    kept = [entry for entry in entries if entry[:2] in _KNOWN]
    others[-1] += area[sum(map(len, entries)) :]
    return b"".join((*kept, *map(_padding, others))), unknown


def _split(area: bytes) -> list[bytes]:
    """Its entries, the one that ends it with all that is behind; none if these are no entries."""
    entries: list[bytes] = []
    at = 0
    while len(area) - at >= _HEAD:
        name, length = area[at : at + 2], area[at + 2]
        end = len(area) if name == _END else at + length
        if length < _HEAD or end > len(area) or not name.isalnum():
            return []
        entries.append(area[at:end])
        at = end
    return entries


def _padding(entry: bytes) -> bytes:
    """Padding as long as an entry, which still tells what it was."""
    made = b""
    while len(entry) - len(made) > _MOST + _HEAD:
        made += b"PD" + bytes([_MOST, 1]) + bytes(_MOST - _HEAD)
    left = len(entry) - len(made)
    return made + b"PD" + bytes([left, 1]) + entry[: left - _HEAD]
