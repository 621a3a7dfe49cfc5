"""A picture of a device as SVG."""

from __future__ import annotations

from xml.sax.saxutils import escape

from cowcloop.picture import Picture
from cowcloop.picture.drawing import INK, OUTLINE, PALETTE, Rectangle, Words, draw

# From the top of a line of text to its base line.
_ASCENT = 11


def svg(picture: Picture) -> bytes:
    """As an SVG document."""
    drawing = draw(picture)
    width, height = drawing.width, drawing.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" '
        'shape-rendering="crispEdges">',
        f"<title>{_xml(drawing.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *map(_rectangle, drawing.rectangles),
        *map(_words, drawing.words),
        "</svg>\n",
    ]
    return "\n".join(parts).encode("utf-8", "replace")


def _rectangle(one: Rectangle) -> str:
    stroke = f' stroke="{_colour(OUTLINE)}"' if one.outlined else ""
    return (
        f'<rect x="{one.x}" y="{one.y}" width="{one.width}" height="{one.height}" '
        f'fill="{_colour(one.colour)}"{stroke}/>'
    )


def _words(one: Words) -> str:
    anchor = ' text-anchor="end"' if one.ends else ""
    place = f'x="{one.x}" y="{one.y + _ASCENT}"'
    return f'<text {place} fill="{_colour(INK)}"{anchor}>{_xml(one.text)}</text>'


def _colour(number: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*PALETTE[number])


def _xml(words: str) -> str:
    """Text for XML, which knows no control characters."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in words))
