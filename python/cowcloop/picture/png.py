"""A picture of a device as PNG."""

from __future__ import annotations

import struct
import zlib

from cowcloop.picture import BEYOND, Picture, glyphs
from cowcloop.picture.drawing import INK, OUTLINE, PALETTE, Drawing, Rectangle, Words, draw

_PALETTED = 3


def png(picture: Picture) -> bytes:
    """As a PNG file. Its words are in a text field of the file, too."""
    drawing = draw(picture)
    rows = _pixels(drawing)
    header = struct.pack(">IIBBBBB", drawing.width, drawing.height, 8, _PALETTED, 0, 0, 0)
    words = "\n".join([picture.heading(), *(text for _, text in picture.legend())])
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", bytes(value for colour in PALETTE for value in colour)),
            _chunk(b"iTXt", b"Description\0\0\0\0\0" + words.encode("utf-8", "replace")),
            _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _pixels(drawing: Drawing) -> list[bytearray]:
    """Rows of a byte per pixel: numbers of colours."""
    rows = [bytearray([BEYOND]) * drawing.width for _ in range(drawing.height)]
    for one in drawing.rectangles:
        if one.outlined:
            edge = Rectangle(one.x - 1, one.y - 1, one.width + 2, one.height + 2, OUTLINE)
            _fill(rows, edge)
        _fill(rows, one)
    for words in drawing.words:
        _write(rows, words)
    return rows


def _fill(rows: list[bytearray], one: Rectangle) -> None:
    for row in rows[one.y : one.y + one.height]:
        row[one.x : one.x + one.width] = bytes([one.colour]) * one.width


def _write(rows: list[bytearray], words: Words) -> None:
    left = words.x - len(words.text) * glyphs.WIDTH if words.ends else words.x
    for column, row in glyphs.pixels(words.text):
        x, y = left + column, words.y + row
        # A name can be longer than the picture is wide.
        if 0 <= x < len(rows[0]) and 0 <= y < len(rows):
            rows[y][x] = INK


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)
