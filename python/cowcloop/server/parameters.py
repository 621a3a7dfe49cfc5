"""The parameters of a device, which nbdkit's plugin and cowcloopd take alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cowcloop
from cowcloop.files import MEMORY
from cowcloop.options import DIRECTORY, ENDPOINT, FLAG, PATH, Option, ServerKeywords, table
from cowcloop.part import Part
from cowcloop.server.address import endpoint
from cowcloop.server.options import ServeOptions, absolute
from cowcloop.source import file_of

#: The compiled programs that belong to this package.
LIBRARY = Path(cowcloop.__file__).resolve().parent / "lib"


@dataclass(frozen=True)
class Channels:
    """How a server is in touch with the process that starts it.

    It tells what happens by the descriptor `events`, and in its `log` if that is wanted. It ends
    cleanly when the descriptor `lifeline` reaches its end before anything comes through it. A URL
    with secrets is in the file that `urls` has for its parameter: others see a command line.
    """

    control: str | None = None
    events: int | None = None
    log: bool = True
    lifeline: int | None = None
    urls: Mapping[str, int] = field(default_factory=dict)


def parameters(
    options: ServeOptions, channels: Channels, waiting: int | None = None
) -> Iterator[str]:
    """The words for what is to be served; `waiting` requests may wait for a suspended image."""
    if channels.events is not None:
        # First, so that errors in other parameters are reported there.
        yield f"events={channels.events}"
        if not channels.log:
            yield "log=false"
    yield from (f"{name}-url={file}" for name, file in channels.urls.items())
    yield from _image(options, channels)
    yield from (f"cow={cow if cow == MEMORY else absolute(cow)}" for cow in options.cows)
    yield from _given(options, channels)
    for name, value in (
        ("waiting", waiting),
        ("control", channels.control),
        ("lifeline", channels.lifeline),
    ):
        if value is not None:
            yield f"{name}={value}"
    if options.read_only:
        yield "create=false"


def _image(options: ServeOptions, channels: Channels) -> Iterator[str]:
    source = options.source
    if "image" not in channels.urls:
        yield f"image={absolute(file_of(source))}"
    if isinstance(source, Part):
        yield from (f"image-range={offset}+{length}" for offset, length in source.ranges)
        if source.ranges:
            yield f"image-name={absolute(source.name)}"


def _given(options: ServeOptions, channels: Channels) -> Iterator[str]:
    for name, option in table(ServerKeywords).items():
        value = options.given.get(name)
        if value is not None and option.plugin and name not in channels.urls:
            yield f"{option.flag.removeprefix('--')}={word(option, value)}"


def word(option: Option, value: Any) -> str:
    if option.kind is FLAG:
        return "true"
    is_path = option.kind in (PATH, DIRECTORY) or (
        option.kind is ENDPOINT and endpoint(value) is None
    )
    return absolute(value) if is_path else str(value)
