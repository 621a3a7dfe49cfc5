"""What help shows: --help everything, -h the essentials on one screen of 24 lines."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from rich.text import Text

# Options and commands that only --help shows, besides the rare options of a device.
_RARE = {
    "exit_with_parent",
    "free",
    "print_command",
    "show_completion",
    "verbose",
    "quiet",
    "short_help",
    "help",
    "version",
}
_RARE_COMMANDS = {
    "digest",
    "live",
    "pull",
    "recover",
    "suspend",
    "resume",
    "reopen",
    "session",
    "bench",
}

_SHORT = "cowcloop.short_help"


def paragraphs(command: click.Command) -> list[tuple[bool, list[str]]]:
    """A docstring's paragraphs: whether to keep its lines as they are, and these."""
    found = []
    for part in inspect.cleandoc(command.help or "").split("\n\n"):
        lines = part.splitlines()
        kept = lines[:1] == ["\b"]
        found.append((kept, lines[1:] if kept else lines))
    return found


def prose(ctx: click.Context, command: click.Command) -> Text:
    """The paragraphs as help shows them; in short help, the first and an example."""
    from rich.text import Text

    found = paragraphs(command)
    if _SHORT in ctx.meta:
        examples = next((lines for kept, lines in found if kept and lines[0] == "Examples:"), [])
        # Without the blanks that align the comments of several examples.
        example = [f"Example: {' '.join(examples[1].split())}"] if examples else []
        found = [found[0], *([(True, example)] if example else [])]
    parts = ["\n".join(lines) if kept else " ".join(lines) for kept, lines in found]
    return Text("\n\n".join(parts) + "\n")


def shown(ctx: click.Context, params: list[click.Parameter]) -> list[click.Parameter]:
    """The parameters that this help shows."""
    if _SHORT not in ctx.meta:
        return params
    return [p for p in params if p.name not in _RARE and not getattr(p, "rare", False)]


def shown_commands(ctx: click.Context, names: list[str]) -> list[str]:
    """The commands that this help shows."""
    return [name for name in names if name not in _RARE_COMMANDS] if _SHORT in ctx.meta else names


def short(ctx: click.Context) -> str:
    """Help without the rare options."""
    command = copy.copy(ctx.command)
    command.epilog = f"{ctx.command_path} --help says more."
    ctx.meta[_SHORT] = True
    # One list without headings in it takes fewer lines.
    config = ctx.help_config  # type: ignore[attr-defined]
    ctx.help_config = copy.copy(config)  # type: ignore[attr-defined]
    ctx.help_config.option_groups = ctx.help_config.command_groups = {}  # type: ignore[attr-defined]
    try:
        return command.get_help(ctx)
    finally:
        ctx.help_config = config  # type: ignore[attr-defined]
        del ctx.meta[_SHORT]
