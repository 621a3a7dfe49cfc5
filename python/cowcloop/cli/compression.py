"""How hard blocks are compressed: the options of the commands that make images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click

from cowcloop.cli.base import BLOCK_SIZE

_Command = TypeVar("_Command", bound=Callable[..., Any])


class LevelType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """1 to 9, or best."""

    name = "1..9|best"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """The level as a number, or the word best."""
        if value in ("best", *range(1, 10)):
            return value  # type: ignore[no-any-return]
        if value in tuple("123456789"):
            return int(value)
        return self.fail(f"{value!r} is not a level: 1 (fast) to 9 (small), or best", param, ctx)


def level_option(meaning: str) -> Callable[[_Command], _Command]:
    """The option --level, with what its help says."""
    return click.option("--level", type=LevelType(), default=8, metavar="1..9|best", help=meaning)


#: The option --block-size of commands that keep the blocks of a compressed image.
BLOCK_SIZE_OF_RAW = click.option(
    "--block-size",
    type=BLOCK_SIZE,
    default=65536,
    metavar="SIZE",
    help="Bytes per block, where IMAGE is not compressed (default: 64K).",
)
