"""cow rebase: a cowfile is made to fit another image of the same device."""

from __future__ import annotations

from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import IMAGE, JSON, PATH, SOME_COWS, command
from cowcloop.cli.device_options import options_of
from cowcloop.cli.progress import progress
from cowcloop.options import RemoteKeywords


@command("rebase")
@IMAGE
@SOME_COWS
@click.option("--old", type=PATH, metavar="OLD", help="The image that COW was made on.")
@click.option("--trust-base", is_flag=True, help="Compare size and fingerprint alone.")
@options_of(RemoteKeywords)
@JSON
def rebase_command(
    image: str,
    cows: tuple[str, ...],
    old: str | None,
    trust_base: bool,
    as_json: bool,
    **remote: Any,
) -> None:
    """Make COW fit IMAGE, which holds the same device as the image that it was made on.

    IMAGE may be that image extracted, or compressed anew. --old OLD compares the two, byte for
    byte. Without the old image, --trust-base compares what the original driver did: the size, and
    the sums of four blocks. An image with other content may well have the same, and what is
    written over that is lost. Cowfiles below COW, which are made to fit first, come before it.

    \b
    Examples:
      cowcloop cow rebase chicken.raw chicken.cow --old chicken
      cowcloop cow rebase chicken.raw chicken.cow --trust-base
      cowcloop cow rebase chicken.raw course.cow anna.cow --old chicken
    """
    from cowcloop import _core
    from cowcloop.source import locate, shown

    if (old is None) != trust_base:
        raise click.UsageError("give one of --old OLD, to compare with, and --trust-base")
    *lower, cow = cows
    source = None if old is None else locate(old, **remote)
    base = locate(image, **remote)
    image = shown(image)
    with progress("comparing") as report:
        done = _core.cow_rebase(base, lower, cow, old=source, progress=report)
    if not done["changed"] and not as_json:
        console.done(f"{cow}: fits {image} already: nothing was changed")
        return
    how = "the same, byte for byte" if old is not None else "the same size and fingerprint"
    console.outcome(as_json, cow, done, f"fits {image}: {how}")
