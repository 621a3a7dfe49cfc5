"""create: compress a raw image, a stream or a directory."""

from __future__ import annotations

import os
from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import BLOCK_SIZE, FORCE, JSON, PATH, THREADS, command
from cowcloop.cli.compression import level_option
from cowcloop.cli.extract import check_input, check_output
from cowcloop.cli.progress import progress
from cowcloop.cli.spread import DASK, pool_at
from cowcloop.sizes import format_size


@command("create")
@click.argument("src", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--block-size",
    type=BLOCK_SIZE,
    metavar="SIZE",
    help="Uncompressed bytes per block, a multiple of 512 (default: 64K).",
)
@click.option(
    "--exact", is_flag=True, help="Choose a block size that divides SRC: no zeros are added."
)
@level_option("1 is fast, 9 small, best tries everything (default: 8).")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["v2", "v4"]),
    default="v2",
    help="v2 is read everywhere (default: v2).",
)
@click.option(
    "--codec",
    type=click.Choice(["zlib", "none", "xz", "lz4", "lzo"]),
    default="zlib",
    help="Compressor; other than zlib with v4 only (default: zlib).",
)
@click.option("--footer", is_flag=True, help="Header and index behind the data (v4 only).")
@THREADS
@DASK
@FORCE
@JSON
def create_command(
    src: str,
    out: str,
    block_size: int | None,
    exact: bool,
    level: int | str,
    format_: str,
    codec: str,
    footer: bool,
    threads: int | None,
    dask: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Compress SRC into the cloop image OUT.

    SRC is a raw image, a block device, - for standard input, or a directory, of which an ext2
    filesystem is made first. The same input and options give the same bytes. OUT is complete or
    not there; - is standard output.

    A last block that SRC does not fill is filled up with zeros, and a warning says so: they change
    the digest, and the backup of a GPT is no longer at the end. --exact adds none.

    \b
    Examples:
      cowcloop create disk.raw disk.cloop
      cowcloop create --exact /dev/sdb evidence.cloop
      cowcloop create --level best /usr/share/doc doc.cloop
      ssh host cat /dev/sdb1 | cowcloop create - sdb1.cloop
      cowcloop create --level best --dask tcp://head:8786 huge.raw huge.cloop
    """
    from cowcloop import _core
    from cowcloop import block_size as blocks

    _check(format_, codec, footer, exact and block_size is not None)
    check_output(out, as_json)
    check_input(src)

    options: dict[str, Any] = {
        "level": level,
        "format": format_,
        "codec": codec,
        "footer": footer,
        "force": force,
    }

    def compress(source: str) -> dict[str, Any]:
        chosen = blocks.exact(source, src) if exact else block_size or blocks.USUAL
        with pool_at(dask, threads) as pool, progress("compressing") as report:
            if pool is None:
                done = _core.create(
                    source, out, block_size=chosen, threads=threads, progress=report, **options
                )
            else:
                from cowcloop import cluster

                done = cluster.create(
                    pool, source, out, block_size=chosen, progress=report, **options
                )
        _warn_of_blocks(src, source, done, chosen, exact)
        return done

    if os.path.isdir(src):
        from cowcloop.ext2 import filesystem_of

        _core.check_output(out, image=True, force=force)
        with filesystem_of(src, place_beside(out), warn=console.warning) as source:
            done = compress(source)
    else:
        done = compress(src)
    sizes = f"{format_size(done['input_size'])} in {format_size(done['file_size'])}"
    console.outcome(as_json, out, done, sizes)


def _warn_of_blocks(src: str, source: str, done: dict[str, Any], chosen: int, exact: bool) -> None:
    """Say what a block size of `chosen` bytes means for readers, and for the end of the device."""
    from cowcloop import block_size as blocks

    warn(blocks.unusual(src, chosen, exact))
    # The filesystem of a directory knows its own size, wherever its device ends.
    if source == src:
        shown = "standard input" if src == "-" else src
        remedy = "--block-size {}" if src == "-" else "--block-size {}, or --exact,"
        warn(blocks.padding_warning(shown, done["input_size"], chosen, remedy))


def _check(format_: str, codec: str, footer: bool, exact_and_chosen: bool) -> None:
    """Refuse options that exclude each other."""
    if exact_and_chosen:
        raise click.UsageError("--exact chooses the block size: leave out --block-size")
    if format_ == "v2" and codec != "zlib":
        raise click.UsageError(f"--codec {codec} needs --format v4")
    if format_ == "v2" and footer:
        raise click.UsageError("--footer needs --format v4")


def warn(text: str | None) -> None:
    """Print a warning, if there is one."""
    if text is not None:
        console.warning(text)


def place_beside(out: str) -> str | None:
    """The directory of OUT if that is a file; None otherwise, as for a device."""
    place = os.path.realpath(out)
    if out == "-" or (os.path.exists(place) and not os.path.isfile(place)):
        return None
    return os.path.dirname(place)
