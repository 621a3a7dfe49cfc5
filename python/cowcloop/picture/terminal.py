"""A picture of a device on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from cowcloop.picture import COLOURS, LETTERS, Picture


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
