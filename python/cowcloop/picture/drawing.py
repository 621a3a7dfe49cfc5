"""The layout of a picture in a file, in pixels, for SVG and PNG alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from cowcloop.picture import BEYOND, COLOURS, Picture
from cowcloop.sizes import format_size

#: Colours of a drawing by number: those of the cells, of text and of outlines.
INK, OUTLINE = len(COLOURS), len(COLOURS) + 1
PALETTE = (*COLOURS, (51, 51, 51), (153, 153, 153))

# A cell's side, the border, the place for offsets beside the cells, a line of text, and the
# most that one letter takes.
_CELL = 8
_BORDER = 16
_OFFSETS = 80
_LINE = 20
_LETTER = 8

# How many lines of cells lie between two offsets that are named, at least.
_STEP = 8


@dataclass(frozen=True)
class Rectangle:
    """A filled rectangle; with an outline inside its edge, or without."""

    x: int
    y: int
    width: int
    height: int
    colour: int
    outlined: bool = False


@dataclass(frozen=True)
class Words:
    """A line of text. ``x`` is its beginning, or its end; ``y`` the top of it."""

    x: int
    y: int
    text: str
    ends: bool = False


@dataclass
class Drawing:
    """Rectangles and text on white ground."""

    width: int
    height: int
    title: str
    rectangles: list[Rectangle] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)


def draw(picture: Picture) -> Drawing:
    """Heading, cells with their offsets beside them, a bar of the totals, the legend."""
    legend = picture.legend()
    left, top = _BORDER + _OFFSETS, _BORDER + _LINE
    across = picture.columns * _CELL
    bar = top + picture.rows * _CELL + _BORDER
    below = bar + _LINE + _BORDER
    height = below + len(legend) * _LINE + _BORDER
    drawing = Drawing(left + across + _BORDER, height, picture.title)
    words, rectangles = drawing.words, drawing.rectangles
    words.append(Words(left, _BORDER - 2, _heading(picture, across // _LETTER)))
    for row, line in enumerate(picture.lines()):
        y = top + row * _CELL
        column = 0
        for kind, count in _runs(line):
            rectangles.append(Rectangle(left + column * _CELL, y, count * _CELL, _CELL, kind))
            column += count
    for offset in _offsets(picture):
        y = top + picture.row_of(offset) * _CELL - 2
        words.append(Words(left - 8, y, format_size(offset) if offset else "0", True))
    rectangles += _bar(picture, left, bar, across)
    for number, (kind, text) in enumerate(legend):
        y = below + number * _LINE
        rectangles.append(Rectangle(left, y, 2 * _CELL, _LINE - 6, kind, True))
        words.append(Words(left + 3 * _CELL, y + 1, text))
    return drawing


def _heading(picture: Picture, room: int) -> str:
    """The heading, with names that are too long for it cut in their middle."""
    heading = picture.heading()
    excess = len(heading) - room
    if excess <= 0:
        return heading
    kept = max(8, len(picture.title) - excess - 3)
    start = kept // 2
    title = f"{picture.title[:start]}...{picture.title[len(picture.title) - (kept - start) :]}"
    return replace(picture, title=title).heading()


def _offsets(picture: Picture) -> range:
    """Round ones: every power of two that leaves room for the words."""
    apart = _STEP * picture.columns * picture.size // max(1, len(picture.cells))
    return range(0, picture.size, 1 << max(1, apart - 1).bit_length())


def _runs(line: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbours of one kind: the kind, and how many."""
    start = 0
    for at in range(1, len(line) + 1):
        if at == len(line) or line[at] != line[start]:
            yield line[start], at - start
            start = at


def _bar(picture: Picture, x: int, y: int, across: int) -> Iterator[Rectangle]:
    """The totals side by side, each by its share."""
    done = drawn = 0
    for kind, size in enumerate(picture.totals):
        done += size
        end = across * done // picture.size if picture.size else 0
        if end > drawn:
            yield Rectangle(x + drawn, y, end - drawn, _LINE, kind)
            drawn = end
    if drawn < across:
        yield Rectangle(x + drawn, y, across - drawn, _LINE, BEYOND)
