"""verify: ranges of blocks to workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .. import _core
from ..part import Part
from ..source import Source
from . import tasks
from .creating import VERSION, Progress
from .ordered import Call, InOrder
from .pool import Pool
from .sight import missing, sight_of

#: Uncompressed bytes of a range, unless a block is more.
RANGE = 16 << 20
#: Bad blocks that are described, as in _core.verify().
_MAX_BAD = 100_000


@dataclass(frozen=True)
class _Range:
    first: int
    end: int

    def __str__(self) -> str:
        return f"the range of blocks from {self.first} to {self.end - 1}"


def verify(pool: Pool, source: Source, *, progress: Progress = None) -> dict[str, Any]:
    """As _core.verify(), with the blocks checked by the pool's workers."""
    checker = _core.Checker(source)
    blocks, block_size = checker.blocks, checker.block_size
    where = _where(source, checker)
    unreadable: dict[int, tasks.Bad] = {}

    def call(part: _Range, send: bool) -> Call:
        if not send and where is not None:
            return tasks.check_seen, (VERSION, where, part.first, part.end)
        taken, data, unreadable[part.first] = checker.take(part.first, part.end)
        return tasks.check_bytes, (VERSION, taken, data, block_size)

    piece = max(1, RANGE // block_size)
    bad: tasks.Bad = []
    count = 0
    work = InOrder(pool, call, pool.window(piece * block_size))
    for part, found in work.run(_ranges(blocks, piece)):
        found = sorted(found + unreadable.pop(part.first, []), key=lambda block: block["block"])
        count += len(found)
        bad += found[: _MAX_BAD - len(bad)]
        if progress is not None:
            progress(part.end * block_size, blocks * block_size)
    return {"blocks": blocks, "bad_blocks": count, "bad": bad}


def _ranges(blocks: int, piece: int) -> Iterator[_Range]:
    for first in range(0, blocks, piece):
        yield _Range(first, min(first + piece, blocks))


def _where(source: Source, checker: _core.Checker) -> tasks.Where | None:
    """The image for workers that see it; None where none can."""
    if not isinstance(source, Part):
        source = Part(os.fsdecode(source), (), os.fsdecode(source))
    tree = _absolute(source.verity_tree)
    file, *trees = map(os.fsdecode, checker.files)
    remote = source.remote
    # The tree beside an image need not be there: then a worker must not see one either.
    sights = [sight_of(each) or missing(each) for each in trees]
    if remote is None:
        image = replace(source, path=os.path.abspath(source.path), verity_tree=tree)
        sight = sight_of(file)
        if sight is None:
            return None
        sights.append(sight)
    else:
        if checker.mark is None:
            return None
        cache, ca_file = _absolute(remote.cache_dir), _absolute(remote.ca_file)
        remote = replace(remote, cache_dir=cache, ca_file=ca_file)
        image = replace(source, verity_tree=tree, remote=remote)
    return tasks.Where(image, tuple(sights), checker.mark)


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)
