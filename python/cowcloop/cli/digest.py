"""digest: the digest of an image, and the tree to verify it with."""

from __future__ import annotations

from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import FORCE, IMAGE, JSON, PATH, THREADS, command
from cowcloop.cli.device_options import options_of
from cowcloop.cli.progress import progress
from cowcloop.options import RemoteKeywords


@command("digest")
@IMAGE
@click.option("--tree", type=PATH, metavar="FILE", help="Write the digest tree to FILE.")
@options_of(RemoteKeywords)
@THREADS
@FORCE
@JSON
def digest_command(
    image: str,
    tree: str | None,
    threads: int | None,
    force: bool,
    as_json: bool,
    **remote: Any,
) -> None:
    """Print the digest of IMAGE, as fs-verity has it for the file.

    "fsverity digest" prints the same. With --verity DIGEST other commands read nothing that is
    not of this image; they need its digest tree for that, which --tree writes. A tree at
    IMAGE.verity is found by itself, and then each part of the image is verified when it is first
    read.

    \b
    Examples:
      cowcloop digest chicken
      cowcloop digest chicken --tree chicken.verity
      cowcloop mount chicken my.cow /mnt --verity sha256:...
    """
    from cowcloop import _core
    from cowcloop.source import locate, shown

    if tree == "-":
        raise click.UsageError("--tree needs the name of a file, not -")
    source = locate(image, **remote)
    image = shown(image)
    with progress("reading") as report:
        done = _core.digest(source, tree=tree, threads=threads, force=force, progress=report)
    if as_json:
        console.result_json({"image": image, **done, "tree": tree})
    else:
        console.result(f"{done['digest']} {console.printable(image)}")
