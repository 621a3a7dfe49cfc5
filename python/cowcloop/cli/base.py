"""The parts that all commands share: their class, common options, and types of arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import rich_click as click

from cowcloop.cli import console, helptext
from cowcloop.errors import InvalidInputError
from cowcloop.files import check_cows
from cowcloop.sizes import format_size, parse_size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The engine's limit.
_LARGEST_BLOCK = 64 << 20

CONTEXT = {"help_option_names": ["--help"], "max_content_width": 100}


def program_settings() -> dict[str, Any]:
    """Settings of the whole program: click's own, and how help looks."""
    return {
        **CONTEXT,
        "rich_help_config": {
            "theme": "default-slim",
            "style_epilog_text": "",
            "text_markup": None,
            "options_table_column_types": ["opt_all_metavar", "help"],
            "options_table_help_sections": ["help"],
            "max_width": 100,
            "append_metavars_help_string": "{}",
            "show_arguments": False,
            "command_groups": {
                "cowcloop": [
                    {
                        "name": "Serve",
                        "commands": ["serve", "attach", "detach", "list", "sync", "recover"],
                    },
                    {"name": "Mount", "commands": ["mount", "umount"]},
                    {
                        "name": "While served",
                        "commands": ["suspend", "resume", "reopen", "session"],
                    },
                    {
                        "name": "Images",
                        "commands": [
                            "extract",
                            "create",
                            "commit",
                            "live",
                            "info",
                            "verify",
                            "digest",
                            "map",
                            "bench",
                            "pull",
                        ],
                    },
                    {"name": "Cowfiles", "commands": ["cow"]},
                ]
            },
        },
    }


def _more(_ctx: click.Context, _option: click.Parameter, given: tuple[bool, ...]) -> None:
    console.levels.verbose += len(given)


def _quiet(_ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    console.levels.quiet |= wanted


def _debug(_ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    console.levels.debug |= wanted


def _short_help(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        console.result(helptext.short(ctx))
        ctx.exit()


def _long_help(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        console.result(ctx.get_help())
        ctx.exit()


class CommonOptions(click.Command):
    """A command with the options that all have, before or after the command's name."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The docstring, with the indentation of its examples, which rich_click would lose."""
        formatter.write(helptext.prose(ctx, self))  # type: ignore[arg-type]

    def get_short_help_str(self, limit: int = 150) -> str:
        """The first sentence, which a shell shows where it completes a command's name."""
        return super().get_short_help_str(max(limit, 150))

    def get_help(self, ctx: click.Context) -> str:
        """The help of rich_click, without the blanks that it pads lines with."""
        return "\n".join(line.rstrip() for line in super().get_help(ctx).splitlines()).rstrip()

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """The option of click, but the help is printed as any other result."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _long_help
        return option

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, then the common ones, then --help."""
        params = super().get_params(ctx)
        at = len(params) - 1 if self.add_help_option else len(params)
        return helptext.shown(ctx, params[:at] + _COMMON + params[at:])


_COMMON: list[click.Parameter] = [
    click.RichOption(
        ["-v", "--verbose"],
        is_flag=True,
        multiple=True,
        expose_value=False,
        callback=_more,
        help="Say more; twice: nbdkit's debug output too.",
    ),
    click.RichOption(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_quiet,
        help="No warnings, no progress.",
    ),
    click.RichOption(["--debug"], is_flag=True, expose_value=False, callback=_debug, hidden=True),
    click.RichOption(
        ["-h", "short_help"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_short_help,
        help="Show a short help and exit.",
    ),
]


class Command(CommonOptions, click.RichCommand):
    """A command of the program."""


def command(name: str, **look: Any) -> Callable[[Callable[..., None]], Command]:
    """Make a function a command; its docstring is the help, `look` is for rich_click."""
    settings = {**CONTEXT, "rich_help_config": look} if look else CONTEXT

    def decorate(function: Callable[..., None]) -> Command:
        made = click.command(name, cls=Command, context_settings=settings)(function)
        assert isinstance(made, Command)
        return made

    return decorate


class SizeType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Bytes, or a number with K, M, G or T."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The size in bytes."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class BlockSizeType(SizeType):
    """Bytes of a compressed block."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The size in bytes, one that an image may have."""
        size = super().convert(value, param, ctx)
        if size == 0 or size % 512 or size > _LARGEST_BLOCK:
            most = format_size(_LARGEST_BLOCK)
            self.fail(f"{value!r} is not a multiple of 512 bytes up to {most}", param, ctx)
        return size


class PathType(click.Path):  # type: ignore[type-arg, unused-ignore]
    """A name of a file, which the system would take for the current directory when empty.

    Whether it can be read is found out by reading it.
    """

    def __init__(self) -> None:
        super().__init__(readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name."""
        if not value:
            self.fail("the name is empty (a variable that is not set?)", param, ctx)
        return super().convert(value, param, ctx)


class DirectoryType(PathType):
    """A name of a directory."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Directories, which the shell finds."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="dir")]


def _checked(ctx: click.Context, _param: click.Parameter, cows: tuple[str, ...]) -> tuple[str, ...]:
    try:
        check_cows(ctx.params.get("image", ""), cows)
    except InvalidInputError as error:
        raise click.UsageError(str(error)) from None
    return cows


SIZE = SizeType()
BLOCK_SIZE = BlockSizeType()
PATH = PathType()
DIRECTORY = DirectoryType()
IMAGE = click.argument("image", type=PATH)
COWS = click.argument("cows", type=PATH, nargs=-1, metavar="[COW]...", callback=_checked)
SOME_COWS = click.argument(
    "cows", type=PATH, nargs=-1, required=True, metavar="COW...", callback=_checked
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document, sizes in bytes.")
FORCE = click.option(
    "--force",
    is_flag=True,
    help="Replace the output even if it is a cowfile or a compressed image.",
)
DISCARD = click.option(
    "--discard",
    is_flag=True,
    help="Go on even if changes are lost: a cowfile was removed, or writes have failed.",
)
THREADS = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Threads (default: all processors).",
)
SESSION = click.option(
    "--session",
    metavar="NAME",
    help="The session, of a device that has them (default: the one that the URI names).",
)
