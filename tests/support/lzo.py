"""A small LZO1X encoder, enough to exercise a decoder: literals and matches.

The stream is a sequence of instructions. This encoder uses the long literal
run (``0000LLLL``), the match of up to 16 KiB back (``001LLLLL``) with up to
three trailing literals in its low bits, the match of 16 to 48 KiB back
(``0001HLLL``), and the end marker ``11 00 00``.
"""

from __future__ import annotations

END = b"\x11\x00\x00"
_NEAR = 0x4000
_FAR = 0xBFFF
_MIN_MATCH = 6


def _run(base: int, length: int) -> bytes:
    """Encodes ``length - base`` as zeros worth 255 and a last byte of 1 to 255."""
    rest = length - base
    zeros, last = divmod(rest - 1, 255)
    return b"\0" * zeros + bytes([last + 1])


def _literals(data: bytes) -> bytes:
    """A literal run of 4 bytes or more where no literals precede it."""
    length = len(data)
    if length <= 18:
        return bytes([length - 3]) + data
    return b"\0" + _run(18, length) + data


def _match(length: int, distance: int, trailing: int) -> bytes:
    if distance <= _NEAR:
        back = distance - 1
        head = bytes([0x20 | (length - 2)]) if length <= 33 else b"\x20" + _run(33, length)
    else:
        back = distance - _NEAR
        high = 0x08 if back & _NEAR else 0
        back &= _NEAR - 1
        if length <= 9:
            head = bytes([0x10 | high | (length - 2)])
        else:
            head = bytes([0x10 | high]) + _run(9, length)
    return head + ((back << 2) | trailing).to_bytes(2, "little")


def compress(data: bytes) -> bytes:
    """Compresses ``data`` (at least 4 bytes) into one raw LZO1X block."""
    if len(data) < 4:
        raise ValueError("too short for this encoder")
    ops: list[tuple[bytes, int, int]] = []  # literals before, match length, distance
    seen: dict[bytes, int] = {}
    start = at = 0
    end = len(data)
    while at + _MIN_MATCH <= end:
        key = data[at : at + _MIN_MATCH]
        earlier = seen.get(key)
        seen[key] = at
        # The first instruction must be a literal run of at least four bytes.
        if earlier is None or not 1 <= at - earlier <= _FAR or (not ops and at - start < 4):
            at += 1
            continue
        distance = at - earlier
        length = _MIN_MATCH
        while at + length < end and data[at + length] == data[earlier + length]:
            length += 1
        ops.append((data[start:at], length, distance))
        at += length
        start = at
    out = bytearray()
    pending: tuple[int, int] | None = None

    def put(literals: bytes) -> None:
        nonlocal pending
        if pending is not None:
            few = len(literals) if len(literals) < 4 else 0
            out.extend(_match(pending[0], pending[1], few))
            pending = None
            out.extend(literals[:few])
            literals = literals[few:]
        if literals:
            out.extend(_literals(literals))

    for literals, length, distance in ops:
        put(literals)
        pending = (length, distance)
    put(data[start:])
    return bytes(out) + END


def store(data: bytes) -> bytes:
    """``data`` as one literal run: a legal block that does not compress."""
    return _literals(data) + END
