"""libnbd's Python module, wherever the distribution put it."""

from __future__ import annotations

import importlib
import sys
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
