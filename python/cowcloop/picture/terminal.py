"""A picture of a device on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from cowcloop.picture import COLOURS, LETTERS, Picture

# Where there are 16 colours: the nearest ones would show two kinds alike.
_FEW = ("white", "bright_cyan", "cyan", "bright_blue", "blue", "yellow", "bright_red", "black")


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
    from rich.table import Table
    from rich.text import Text

    # Half blocks: two rows of cells a line, so that cells are about square.
    out = Console(highlight=False)
    many = [f"rgb({r},{g},{b})" for r, g, b in COLOURS]
    styles = _FEW if out.color_system == "standard" else many
    out.print(Text(picture.heading()))
    lines = [*picture.lines()]
    for upper, lower in zip(lines[::2], [*lines[1::2], ()]):
        text = Text(no_wrap=True, overflow="crop")
        for number, cell in enumerate(upper):
            below = lower[number] if number < len(lower) else None
            style = Style(color=styles[cell], bgcolor=None if below is None else styles[below])
            text.append("▀", style)
        out.print(text)
    legend = Table.grid(padding=(0, 1))
    for kind, words in picture.legend():
        legend.add_row(Text("██", styles[kind]), words)
    out.print(legend)
