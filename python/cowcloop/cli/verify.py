"""verify: check the index and every block of an image."""

from __future__ import annotations

from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import IMAGE, JSON, THREADS, command
from cowcloop.cli.device_options import options_of
from cowcloop.cli.progress import progress
from cowcloop.cli.spread import DASK, pool_at
from cowcloop.options import ImageKeywords


@command("verify")
@IMAGE
@options_of(ImageKeywords)
@JSON
@THREADS
@DASK
@click.pass_context
def verify_command(
    ctx: click.Context,
    /,
    image: str,
    as_json: bool,
    threads: int | None,
    dask: str | None,
    **values: Any,
) -> None:
    """Check the index and every block of IMAGE, and list what is bad.

    The exit code is 1 if there are bad blocks.

    \b
    Examples:
      cowcloop verify chicken
      cowcloop verify chicken --json
      cowcloop verify --dask local:4 chicken
    """
    from cowcloop import _core
    from cowcloop.source import locate, shown

    source = locate(image, **values)
    image = shown(image)
    with pool_at(dask, threads) as pool, progress("verifying") as report:
        if pool is None:
            found = _core.verify(source, threads=threads, progress=report)
        else:
            from cowcloop import cluster

            found = cluster.verify(pool, source, progress=report)
    bad = found["bad"]
    if as_json:
        size = _core.image_info(source)["size"]
        console.result_json({"image": image, "size": size, **found})
    else:
        for block in bad:
            where = f"block {block['block']} at offset {block['offset']}"
            console.line(f"{where}, {block['length']} bytes: {block['reason']}")
        if not bad and not console.levels.quiet:
            console.line(f"{image}: all {found['blocks']} blocks are good")
    if bad:
        count = found["bad_blocks"]
        rest = "" if len(bad) == count else f"; the first {len(bad)} are listed"
        console.error(f"{image}: {count} of {found['blocks']} blocks are bad{rest}")
        ctx.exit(1)
