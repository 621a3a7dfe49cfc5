"""libnbd's Python module, wherever the distribution put it."""

from __future__ import annotations

import importlib
import select
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from support.programs import missing

_DISTRIBUTION = "/usr/lib/python3/dist-packages"


def module() -> ModuleType:
    """The module ``nbd``."""
    try:
        return importlib.import_module("nbd")
    except ImportError:
        pass
    sys.path.append(_DISTRIBUTION)
    try:
        return importlib.import_module("nbd")
    except ImportError as error:
        missing(f"libnbd's Python module cannot be imported ({error}; package python3-libnbd)")
    finally:
        sys.path.remove(_DISTRIBUTION)


def connect(uri: str, *, extents: bool = False) -> Any:
    """A connected handle."""
    nbd = module()
    handle = nbd.NBD()
    if extents:
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_uri(uri)
    return handle


def read_all(handle: Any, chunk: int = 1 << 20) -> bytes:
    """The whole device."""
    size = handle.get_size()
    parts = [handle.pread(min(chunk, size - at), at) for at in range(0, size, chunk)]
    return b"".join(bytes(part) for part in parts)


def extents(handle: Any, length: int, offset: int = 0) -> list[tuple[int, int]]:
    """(length, flags) of the extents from ``offset`` on, merged where the flags are equal."""
    found: list[tuple[int, int]] = []
    at = offset

    def entry(_context: str, start: int, entries: list[int], _error: Any) -> int:
        nonlocal at
        assert start == at
        for size, flags in zip(entries[::2], entries[1::2]):
            if found and found[-1][1] == flags:
                found[-1] = (found[-1][0] + size, flags)
            else:
                found.append((size, flags))
            at += size
        return 0

    while at < offset + length:
        before = at
        handle.block_status(min(offset + length - at, 1 << 30), at, entry)
        assert at > before
    return found


def read_together(handles: Sequence[Any], places: Sequence[int], length: int) -> list[list[bytes]]:
    """What each handle reads at these offsets, one after the other; all handles at once.

    The module's own reads hold the GIL while they wait: a server that is a thread of this process
    would not answer.
    """
    nbd = module()
    found: list[list[bytes]] = [[] for _ in handles]
    under_way: dict[int, tuple[Any, int]] = {}
    looked_at = select.poll()

    def begin(number: int) -> None:
        if len(found[number]) < len(places):
            buffer = nbd.Buffer(length)
            cookie = handles[number].aio_pread(buffer, places[len(found[number])])
            under_way[number] = (buffer, cookie)

    for number in range(len(handles)):
        begin(number)
    while under_way:
        numbers = {}
        for number in under_way:
            direction, wanted = handles[number].aio_get_direction(), 0
            wanted |= select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0
            wanted |= select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0
            numbers[handles[number].aio_get_fd()] = number
            looked_at.register(handles[number].aio_get_fd(), wanted)
        for fd, event in looked_at.poll():
            handle = handles[numbers[fd]]
            direction = handle.aio_get_direction()
            if event & ~select.POLLOUT and direction & nbd.AIO_DIRECTION_READ:
                handle.aio_notify_read()
            elif event & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
                handle.aio_notify_write()
        for number in list(under_way):
            looked_at.unregister(handles[number].aio_get_fd())
            buffer, cookie = under_way[number]
            if handles[number].aio_command_completed(cookie):
                del under_way[number]
                found[number].append(bytes(buffer.to_bytearray()))
                begin(number)
    return found
