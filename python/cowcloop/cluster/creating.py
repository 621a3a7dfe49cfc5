"""create: ranges to workers, their results to the writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

from .. import _core
from . import tasks
from .ordered import Call, InOrder
from .pool import Pool
from .sight import sight_of

#: Bytes of a range, unless a block is more: so many that giving it out costs little of the
#: time that compressing it takes.
RANGE = 4 << 20
#: That of the workers must be the same.
VERSION = _core.__version__

Progress = Optional[Callable[[int, Optional[int]], object]]


@dataclass(frozen=True)
class _Range:
    offset: int
    length: int
    #: of a stream, which nothing can read twice
    data: bytes | None

    def __str__(self) -> str:
        return f"the range of {self.length} bytes at byte {self.offset}"


def create(
    pool: Pool,
    source: str,
    out: str,
    *,
    block_size: int = 65536,
    level: int | str = 8,
    format: str = "v2",  # noqa: A002 - the option's name
    codec: str = "zlib",
    footer: bool = False,
    force: bool = False,
    progress: Progress = None,
) -> dict[str, Any]:
    """As _core.create(), with the blocks compressed by the pool's workers."""
    encoding = tasks.Encoding(block_size, level, format, codec, footer)
    assembly = _core.Assembly(source, out, force=force, **encoding.options())
    try:
        size = assembly.size
        sight = None if source == "-" else sight_of(source)
        piece = max(1, RANGE // block_size) * block_size

        def call(part: _Range, send: bool) -> Call:
            if not send and part.data is None and sight is not None:
                arguments = (sight, part.offset, part.length)
                return tasks.compress_seen, (VERSION, encoding, *arguments)
            data = part.data
            if data is None:
                data = assembly.read(part.offset, part.length)
            named = (assembly.name, part.offset, data)
            return tasks.compress_bytes, (VERSION, encoding, *named)

        done = 0
        work = InOrder(pool, call, pool.window(piece))
        for part, compressed in work.run(_ranges(assembly, piece)):
            assembly.append(*compressed)
            done += part.length
            if progress is not None:
                progress(done, size)
        return assembly.finish()
    finally:
        assembly.close()


def _ranges(assembly: _core.Assembly, piece: int) -> Iterator[_Range]:
    offset = 0
    if assembly.seekable:
        size = assembly.size or 0
        for offset in range(0, size, piece):
            yield _Range(offset, min(piece, size - offset), None)
        return
    while True:
        data = assembly.read(offset, piece)
        if data:
            yield _Range(offset, len(data), data)
        if len(data) < piece:
            return
        offset += piece
