"""Pictures of a device: for a terminal, as SVG and as PNG."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from cowcloop.sizes import format_size

#: What a cell is drawn as: an index into COLOURS, LETTERS and NAMES.
ZERO, DENSE_1, DENSE_2, DENSE_3, DENSE_4, CHANGED, DAMAGED, BEYOND = range(8)

#: Compressed to at most this share of the size; darker is larger.
_SHARES = (0.25, 0.5, 0.75)

#: Told apart in grey and by the colour blind: blues by lightness, orange, red.
COLOURS = (
    (238, 238, 238),
    (198, 219, 239),
    (133, 184, 219),
    (66, 130, 189),
    (16, 78, 139),
    (253, 150, 39),
    (203, 24, 29),
    (255, 255, 255),
)
LETTERS = ".1234#X "
NAMES = (
    "zeros",
    "compressed to 25 % or less",
    "to 50 %",
    "to 75 %",
    "to more, or not compressed",
    "changed in the cowfile",
    "damaged",
)

# Pixels: of a cell's side, and of the border.
_CELL = 8
_BORDER = 16
_LINE = 20
_TEXT = (51, 51, 51)


@dataclass(frozen=True)
class Picture:
    """The cells of a device in reading order, and what it holds in bytes, by kind."""

    title: str
    size: int
    columns: int
    cells: tuple[int, ...]
    totals: tuple[int, ...]
    stored: int

    @classmethod
    def of(
        cls,
        title: str,
        size: int,
        parts: Sequence[tuple[int, int, int, int]],
        columns: int,
        bad: Iterable[tuple[int, int]] = (),
    ) -> Picture:
        """From `_core.device_map`'s cells, and (offset, length) of what is damaged in the base."""
        damaged = _spread(size, len(parts), bad)
        totals = [0] * len(NAMES)
        cells = []
        for number, (zero, data, stored, changed) in enumerate(parts):
            # A block that lies in the cowfile is not read from the base any more.
            lost = min(damaged.get(number, 0), data)
            shade = _shade(stored, data)
            totals[ZERO] += zero
            totals[CHANGED] += changed
            totals[DAMAGED] += lost
            totals[shade] += data - lost
            cells.append(DAMAGED if lost else CHANGED if changed else shade if data else ZERO)
        return cls(title, size, columns, tuple(cells), tuple(totals), sum(p[2] for p in parts))

    @property
    def rows(self) -> int:
        """Lines of cells."""
        return math.ceil(len(self.cells) / self.columns)

    @property
    def scale(self) -> str:
        """What one cell stands for."""
        return format_size(math.ceil(self.size / len(self.cells))) if self.cells else "nothing"

    def lines(self) -> Iterator[tuple[int, ...]]:
        """The cells line by line; the last line may be short."""
        for at in range(0, len(self.cells), self.columns):
            yield self.cells[at : at + self.columns]

    def legend(self) -> list[tuple[int, str]]:
        """What each kind of cell means, with its total."""
        shown = []
        for kind, name in enumerate(NAMES):
            size = self.totals[kind]
            if size or kind < DAMAGED:
                share = 100 * size / self.size if self.size else 0.0
                shown.append((kind, f"{name}: {format_size(size)} ({share:.1f} %)"))
        return shown

    def heading(self) -> str:
        """Name, size and scale in one line."""
        data = self.totals[DENSE_1 : DENSE_4 + 1]
        held = sum(data) + self.totals[DAMAGED]
        ratio = f", data compressed to {100 * self.stored / held:.1f} %" if held else ""
        return f"{self.title}: {format_size(self.size)}{ratio}; a cell is {self.scale}"


def _shade(stored: int, data: int) -> int:
    if not data:
        return DENSE_1
    share = stored / data
    return DENSE_1 + sum(share > limit for limit in _SHARES)


def _spread(size: int, cells: int, ranges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Bytes of the ranges in each cell, as the engine divides the device."""
    found: dict[int, int] = {}
    for offset, length in ranges:
        at, end = offset, min(offset + length, size)
        while at < end:
            cell = ((at + 1) * cells - 1) // size
            stop = min(end, (cell + 1) * size // cells)
            found[cell] = found.get(cell, 0) + stop - at
            at = stop
    return found


# A terminal


def plain_lines(picture: Picture) -> Iterator[str]:
    """In characters alone."""
    yield picture.heading()
    for line in picture.lines():
        yield "".join(LETTERS[cell] for cell in line)
    for kind, text in picture.legend():
        yield f"{LETTERS[kind]}  {text}"


def show(picture: Picture) -> None:
    """In colours, on standard output."""
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    # Half blocks: two rows of cells a line, so that cells are about square.
    styles = [f"rgb({r},{g},{b})" for r, g, b in COLOURS]
    out = Console(highlight=False)
    out.print(Text(picture.heading()))
    lines = [*picture.lines()]
    for upper, lower in zip(lines[::2], [*lines[1::2], ()]):
        text = Text(no_wrap=True, overflow="crop")
        for number, cell in enumerate(upper):
            below = lower[number] if number < len(lower) else None
            style = Style(color=styles[cell], bgcolor=None if below is None else styles[below])
            text.append("▀", style)
        out.print(text)
    for kind, words in picture.legend():
        out.print(Text.assemble(("██ ", styles[kind]), words))


# SVG


def svg(picture: Picture) -> bytes:
    """As an SVG document; neighbours of one kind are one rectangle."""
    legend = picture.legend()
    width = picture.columns * _CELL + 2 * _BORDER
    top = _BORDER + _LINE
    below = top + picture.rows * _CELL + _BORDER
    height = below + len(legend) * _LINE + _BORDER
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f"<title>{_xml(picture.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _svg_text(_BORDER, _BORDER + 10, picture.heading()),
    ]
    for row, line in enumerate(picture.lines()):
        column = 0
        for kind, count in _runs(line):
            x, y = _BORDER + column * _CELL, top + row * _CELL
            parts.append(_svg_rect(x, y, count * _CELL, _CELL, kind))
            column += count
    for number, (kind, words) in enumerate(legend):
        y = below + number * _LINE
        parts.append(_svg_rect(_BORDER, y, 2 * _CELL, _LINE - 6, kind, 'stroke="#999999"'))
        parts.append(_svg_text(_BORDER + 3 * _CELL, y + 11, words))
    parts.append("</svg>\n")
    return "\n".join(parts).encode("utf-8", "replace")


def _runs(line: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for at in range(1, len(line) + 1):
        if at == len(line) or line[at] != line[start]:
            yield line[start], at - start
            start = at


def _svg_rect(x: int, y: int, width: int, height: int, kind: int, more: str = "") -> str:
    colour = "#{:02x}{:02x}{:02x}".format(*COLOURS[kind])
    space = f" {more}" if more else ""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}"{space}/>'


def _svg_text(x: int, y: int, words: str) -> str:
    return (
        f'<text x="{x}" y="{y}" fill="#{"".join(f"{c:02x}" for c in _TEXT)}">{_xml(words)}</text>'
    )


def _xml(words: str) -> str:
    """Text for XML, which knows no control characters."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in words))


# PNG


def png(picture: Picture) -> bytes:
    """As a PNG file: the cells, and below them a bar of what the device holds in all.

    It has no words in it; its text fields say what an SVG picture writes below.
    """
    width = picture.columns * _CELL + 2 * _BORDER
    blank = bytes([BEYOND]) * width
    side = bytes([BEYOND]) * _BORDER
    rows = [blank] * _BORDER
    for line in picture.lines():
        pixels = b"".join(bytes([kind]) * _CELL for kind in line)
        row = side + pixels.ljust(picture.columns * _CELL, bytes([BEYOND])) + side
        rows += [row] * _CELL
    rows += [blank] * _BORDER
    rows += [side + _bar(picture, width - 2 * _BORDER) + side] * _LINE
    rows += [blank] * _BORDER
    words = "\n".join([picture.heading(), *(text for _, text in picture.legend())])
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(value for colour in COLOURS for value in colour)),
            _chunk(b"iTXt", b"Description\0\0\0\0\0" + words.encode("utf-8", "replace")),
            _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _bar(picture: Picture, width: int) -> bytes:
    bar = b""
    done = 0
    for kind, size in enumerate(picture.totals):
        done += size
        end = width * done // picture.size if picture.size else 0
        bar += bytes([kind]) * (end - len(bar))
    return bar.ljust(width, bytes([BEYOND]))


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def write(path: str, data: bytes) -> None:
    """Write a file whole or not at all."""
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        error.filename = path
        error.filename2 = None
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
