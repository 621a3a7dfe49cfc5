"""map: a picture of a device."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import COWS, FORCE, IMAGE, JSON, PATH, command
from cowcloop.cli.device_options import options_of
from cowcloop.cli.progress import progress
from cowcloop.errors import InvalidInputError
from cowcloop.files import among, same
from cowcloop.options import ImageKeywords
from cowcloop.picture import Picture
from cowcloop.source import Source

# Cells of a picture in a file: 128 columns, as many rows at most.
_COLUMNS = 128
_ROWS = 96

# Lines of a picture on a terminal, and its width where there is no terminal.
_TERMINAL_ROWS = 16
_PLAIN_WIDTH = 80


@command("map")
@IMAGE
@COWS
@click.option("--png", type=PATH, metavar="OUT", help="Write a PNG file.")
@click.option("--svg", type=PATH, metavar="OUT", help="Write an SVG file.")
@click.option("--check", is_flag=True, help="Read every block first, to show damaged ones.")
@options_of(ImageKeywords)
@FORCE
@JSON
def map_command(
    image: str,
    cows: tuple[str, ...],
    png: str | None,
    svg: str | None,
    check: bool,
    force: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Draw a device: zeros, compressed how well, changed, damaged.

    Each cell is a part of the device, from its beginning on, line by line. It is drawn as the worst
    of what it holds: damaged before changed before compressed before zeros. --json has the totals.

    \b
    Examples:
      cowcloop map chicken
      cowcloop map chicken chicken.cow --svg chicken.svg
      cowcloop map chicken --check --png chicken.png
    """
    from cowcloop.source import file_of, locate, shown

    if png == "-" or svg == "-":
        raise click.UsageError("a picture needs the name of a file, not -")
    if png is not None and svg is not None and same(png, svg):
        raise click.UsageError("--png and --svg name one file: give each picture its own")
    source = locate(image, **values)
    image = shown(image)
    for out in (png, svg):
        _refuse_input(out, (file_of(source), *cows))
    if as_json:
        if png is not None or svg is not None:
            raise click.UsageError("--json and a picture exclude each other")
        drawn = _picture(image, source, cows, _COLUMNS * _ROWS, _COLUMNS, check)
        files = [{"path": cow} for cow in cows]
        console.result_json({"image": image, "cowfiles": files, **drawn.json()})
        return
    if png is None and svg is None:
        _show(image, source, cows, check)
        return
    from cowcloop import _core

    for out in filter(None, (svg, png)):
        _core.check_output(out, force=force)
    drawn = _picture(image, source, cows, _COLUMNS * _ROWS, _COLUMNS, check)
    if svg is not None:
        from cowcloop.picture.svg import svg as as_svg

        _core.write_output(svg, as_svg(drawn), force=force)
    if png is not None:
        from cowcloop.picture.png import png as as_png

        _core.write_output(png, as_png(drawn), force=force)


def _show(image: str, source: Source, cows: tuple[str, ...], check: bool) -> None:
    """Draw on the terminal, or in characters where there is none."""
    from cowcloop.picture import terminal

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_WIDTH
    width = max(16, width)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    # In colour a line shows two rows.
    rows = _TERMINAL_ROWS * (2 if colour else 1)
    drawn = _picture(image, source, cows, width * rows, width, check)
    if colour:
        terminal.show(drawn)
    else:
        for line in terminal.plain_lines(drawn):
            console.result(line)


def _refuse_input(out: str | None, inputs: tuple[str, ...]) -> None:
    if out is not None and among(out, inputs):
        raise InvalidInputError(f"{out}: the picture would replace an input; name another")


def _picture(
    image: str, source: Source, cows: tuple[str, ...], cells: int, columns: int, check: bool
) -> Picture:
    from cowcloop import _core

    bad: list[tuple[int, int]] = []
    if check and _core.sniff(source) == "cloop":
        with progress("checking") as report:
            found = _core.verify(source, progress=report)
        block_size = _core.image_info(source)["block_size"]
        if found["bad_blocks"] > len(found["bad"]):
            listed, count = len(found["bad"]), found["bad_blocks"]
            console.warning(f"{image}: the first {listed} of {count} bad blocks are marked")
        bad = [(one["block"] * block_size, block_size) for one in found["bad"]]
    with progress("reading") as report:
        made: dict[str, Any] = _core.device_map(source, list(cows), cells, progress=report)
    title = " + ".join(os.path.basename(path) or path for path in (image, *cows))
    return Picture.of(console.printable(title), made["size"], made["cells"], columns, bad)
