"""The program `cowcloop` with its commands, found by name when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from difflib import get_close_matches

import rich_click as click

from cowcloop.cli import console, helptext
from cowcloop.cli.base import CommonOptions, program_settings

# Each command's module. Its function has the command's name, with `_command` where the plain
# name would hide one of Python's.
COMMANDS = {
    "serve": "serve",
    "attach": "serve",
    "detach": "devices",
    "list": "devices",
    "sync": "devices",
    "recover": "devices",
    "mount": "mount",
    "umount": "mount",
    "suspend": "live",
    "resume": "live",
    "reopen": "live",
    "session": "session",
    "extract": "extract",
    "create": "create",
    "commit": "commit",
    "live": "bootable",
    "info": "info",
    "verify": "verify",
    "digest": "digest",
    "map": "map",
    "cow": "cow",
    "bench": "bench",
    "pull": "pull",
}

# Commands that hand the arguments after a bare `--` to nbdkit.
_WITH_NBDKIT_ARGS = ("serve", "attach")


class Program(CommonOptions, click.RichGroup):  # type: ignore[misc]
    """The commands by name, each loaded when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return helptext.shown_commands(ctx, list(COMMANDS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command, or None when there is none of this name."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        loaded = importlib.import_module(f"cowcloop.cli.{module}")
        command = getattr(loaded, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest names in the error."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
            hint = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
            ctx.fail(f"No such command {name!r}{hint}")
        return super().resolve_command(ctx, args)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Our own arguments, and those for nbdkit behind the first bare ``--``.

    Only serve and attach have the latter; elsewhere ``--`` has its usual meaning.
    """
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command not in _WITH_NBDKIT_ARGS or "--" not in arguments:
        return list(arguments), ()
    at = list(arguments).index("--")
    return list(arguments[:at]), tuple(arguments[at + 1 :])


def _show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from cowcloop import __version__

        console.result(f"cowcloop {__version__}")
        ctx.exit()


def _show_completion(ctx: click.Context, _option: click.Parameter, shell: str | None) -> None:
    if shell is not None and not ctx.resilient_parsing:
        from cowcloop.cli import completion

        console.result(completion.source(shell, app))
        ctx.exit()


@click.command(cls=Program, context_settings=program_settings())
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.option(
    "--show-completion",
    type=click.Choice(["bash", "zsh", "fish"]),
    is_eager=True,
    expose_value=False,
    callback=_show_completion,
    help="Print the code that completes words in this shell.",
)
def app() -> None:
    """Read cloop images, write over them, and go on tomorrow.

    IMAGE is a cloop or uzip file, or any raw image or block device, or a file in an ISO image
    (cd.iso:/PATH); it is never changed. What you write goes to COW, a cowfile beside it.

    \b
    Examples:
      cowcloop create disk.raw chicken
      cowcloop serve chicken chicken.cow
      cowcloop attach chicken chicken.cow
      cowcloop serve cd.iso:/KNOPPIX/KNOPPIX my.cow
      cowcloop extract chicken chicken.cow new.raw
      cowcloop COMMAND --help
      eval "$(cowcloop --show-completion bash)"
    """
