"""A cloop image out of a plain one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from _typeshed import StrOrBytesPath

    from .image import ProgressFunction

__all__ = ["CreateSummary", "create"]


@dataclass(frozen=True)
class CreateSummary:
    """The outcome of :func:`create`, in bytes but for the number of blocks."""

    input_size: int
    #: of the image's device: the input, and the zeros that fill its last block
    size: int
    blocks: int
    compressed_bytes: int
    #: of the whole image
    file_size: int


def create(
    source: StrOrBytesPath,
    out: StrOrBytesPath,
    *,
    block_size: int = 65536,
    level: int | str = 8,
    format: str = "v2",  # noqa: A002 - the option's name
    codec: str = "zlib",
    footer: bool = False,
    threads: int | None = None,
    force: bool = False,
    executor: Executor | None = None,
    progress: ProgressFunction | None = None,
) -> CreateSummary:
    """Compress a plain image or block device into a cloop image.

    The options are those of the command ``create``. The blocks are compressed on all cores, or
    in ``threads`` threads, or by the workers of an ``executor``: one of
    :mod:`concurrent.futures`, or Dask's (``client.get_executor()``). The bytes are the same.
    """
    names = os.fsdecode(source), os.fsdecode(out)
    options: dict[str, Any] = {
        "block_size": block_size,
        "level": level,
        "format": format,
        "codec": codec,
        "footer": footer,
        "force": force,
        "progress": progress,
    }
    if executor is None:
        return CreateSummary(**_core.create(*names, threads=threads, **options))
    from . import cluster

    return CreateSummary(**cluster.create(cluster.Pool.of(executor), *names, **options))
