"""The options of a device on the command line, made from the table in `cowcloop.options`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import rich_click as click

from cowcloop import options
from cowcloop.cli import console
from cowcloop.cli.base import DIRECTORY, PATH, SIZE, PathType
from cowcloop.files import MEMORY, among
from cowcloop.sizes import format_size
from cowcloop.source import file_of

if TYPE_CHECKING:
    from cowcloop.server.options import ServeOptions

LOG = click.option("--log", type=PATH, metavar="FILE", help="Append the server's messages to FILE.")


class TcpType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A port, or a host and port."""

    name = "PORT|HOST:PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Host and port."""
        from cowcloop.server.address import parse_tcp

        try:
            return parse_tcp(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class EndpointType(PathType):
    """A port, a host and port, or a socket."""

    name = "[HOST:]PORT|SOCKET"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, as it is."""
        from cowcloop.server.address import endpoint

        text = str(super().convert(value, param, ctx))
        try:
            endpoint(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return text


class DigestType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A digest as `fsverity digest` prints it."""

    name = "DIGEST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, as it is."""
        text = str(value)
        if re.fullmatch(r"(sha256:)?[0-9a-fA-F]{64}", text) is None:
            self.fail(f"{text!r} is not sha256: and 64 hexadecimal digits", param, ctx)
        return text


class DeviceOption(click.RichOption):
    """An option of the table."""

    def __init__(self, *words: Any, rare: bool = False, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self.rare = rare


def options_of(*classes: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of classes of the table."""
    known = [option for each in classes for option in options.table(each).values()]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(known):
            function = _made(option)(function)
        return function

    return decorate


def panels_of(*classes: type) -> list[dict[str, Any]]:
    """The groups in which help lists the options of classes."""
    known = [option for each in classes for option in options.table(each).values()]
    return [
        {"name": group, "options": [option.flag for option in known if option.group == group]}
        for group in options.GROUPS
    ]


def _made(option: options.Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    words = [option.flag] if option.short is None else [option.short, option.flag]
    settings: dict[options.Kind, dict[str, Any]] = {
        options.FLAG: {"is_flag": True},
        options.SIZE: {"type": SIZE, "metavar": "SIZE"},
        options.COUNT: {"type": click.IntRange(option.least, option.most), "metavar": "N"},
        options.PATH: {"type": PATH},
        options.DIRECTORY: {"type": DIRECTORY, "metavar": "DIR"},
        options.TCP: {"type": TcpType(), "metavar": TcpType.name},
        options.CHOICE: {"type": click.Choice(option.choices)},
        options.ENDPOINT: {"type": EndpointType()},
        options.DIGEST: {"type": DigestType(), "metavar": DigestType.name},
    }
    chosen = settings[option.kind]
    if option.metavar is not None:
        chosen["metavar"] = option.metavar
    return click.option(*words, cls=DeviceOption, rare=option.rare, help=option.help, **chosen)


def check_device(values: dict[str, Any]) -> None:
    """Refuse options without effect where no cowfile is written, and warn of too much memory."""
    written = None if values["read_only"] or not values["cows"] else values["cows"][-1]
    if values["repair"] and written is None:
        raise click.UsageError("--repair needs a COW that may be written")
    if values["size"] is not None and written is None:
        raise click.UsageError("--size is for a new COW that may be written")
    if values["memory_limit"] is not None and written != MEMORY:
        raise click.UsageError("--memory-limit is for a :memory: COW that may be written")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("cache", "memory_limit"):
        if (values[name] or 0) > memory:
            console.warning(
                f"--{name.replace('_', '-')} {format_size(values[name])}: this machine has "
                f"{format_size(memory)} of memory: what is kept beyond it would end the server"
            )


def check_log(options: ServeOptions, log: str | None) -> None:
    """Refuse a log whose lines would go into an image or a cowfile."""
    from cowcloop import _core

    if log is None:
        return
    if among(log, (file_of(options.source), *options.cows)):
        raise click.UsageError(f"--log {log}: the image or a COW: name another file")
    kind = _core.kept(log)
    if kind is not None:
        raise click.UsageError(f"--log {log}: is a {kind}: name another file")
