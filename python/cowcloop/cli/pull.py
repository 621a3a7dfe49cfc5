"""pull: all of an image, from a server."""

from __future__ import annotations

import os
from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import FORCE, JSON, PATH, command
from cowcloop.cli.device_options import options_of
from cowcloop.cli.progress import progress
from cowcloop.errors import DamagedError
from cowcloop.options import ImageKeywords, RemoteKeywords, normal
from cowcloop.part import Remote, is_url
from cowcloop.sizes import format_size


@command("pull")
@click.argument("url", metavar="URL")
@click.argument("file", type=PATH, required=False)
@FORCE
@JSON
@options_of(ImageKeywords)
def pull_command(url: str, file: str | None, force: bool, as_json: bool, **image: Any) -> None:
    """Fetch all of the image at URL, into the cache or into FILE.

    What is there already is not fetched again, so that a pull that was interrupted goes on where
    it was: that of FILE in FILE.part. The blocks of a compressed image are checked then. From a
    cache that has all of it the image is read without a server (--offline).

    With --verity DIGEST all of it is checked: by the digest tree at URL.verity or in the file that
    --verity-tree names, which tells the damaged parts from the others and has these fetched anew,
    or else as a whole. Parts that are still damaged then are not kept and, without a tree, nothing
    of an image of another digest is.

    \b
    Examples:
      cowcloop pull https://host/chicken
      cowcloop pull https://host/knoppix.iso knoppix.iso
      cowcloop pull s3://bucket/chicken chicken
    """
    from cowcloop import _core
    from cowcloop.source import shown

    if not is_url(url):
        raise click.UsageError(f"{url}: not a URL of http, https, s3, gs or az")
    if file == "-":
        raise click.UsageError("FILE needs a name, not -: the pieces arrive in any order")
    if image.pop("offline"):
        raise click.UsageError("--offline: a pull asks a server: leave it out")
    if file is not None:
        _core.check_output(file, image=True, force=force)
    with progress("fetching") as report:
        verity = {name: image[name] for name in ("verity", "verity_tree")}
        options = Remote(**normal(RemoteKeywords, image))
        path = os.fspath(_core.pull(url, options, file, **verity, progress=report))
    _verify(path)
    size = os.path.getsize(path)
    where = f"{shown(url)}: {format_size(size)} in {path}"
    if as_json:
        console.result_json({"url": shown(url), "path": path, "size": size})
    elif not console.levels.quiet:
        console.line(where)


def _verify(path: str) -> None:
    """Check the blocks of a compressed image."""
    from cowcloop import _core

    if _core.sniff(path) != "cloop":
        return
    with progress("verifying") as report:
        found = _core.verify(path, progress=report)
    if found["bad"]:
        first = found["bad"][0]
        message = f"{found['bad_blocks']} of {found['blocks']} blocks are bad, block "
        raise DamagedError(5, f"{path}: {message}{first['block']} the first: {first['reason']}")
