"""Waiting on several descriptors at once: all that the server's life cycle needs."""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Callable


class Loop:
    """Descriptors and what to do when one of them is readable."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._owned: set[int] = set()

    def add(self, descriptor: int, callback: Callable[[], None], *, owned: bool = True) -> None:
        """Watch a descriptor; an owned one is closed when it is removed."""
        self._selector.register(descriptor, selectors.EVENT_READ, callback)
        if owned:
            self._owned.add(descriptor)

    def remove(self, descriptor: int) -> None:
        """Stop watching a descriptor; one that is not watched is ignored."""
        # ValueError: it was closed, or never opened (-1).
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)
        if descriptor in self._owned:
            self._owned.remove(descriptor)
            os.close(descriptor)

    def watches(self, descriptor: int) -> bool:
        """Whether a descriptor is being watched."""
        return descriptor >= 0 and descriptor in self._selector.get_map()

    def step(self) -> None:
        """Wait until something is readable, and call what belongs to it."""
        for key, _ in self._selector.select():
            # A callback may have removed the descriptor of the next one.
            if self.watches(key.fd):
                key.data()

    def close(self) -> None:
        """Remove everything."""
        for key in list(self._selector.get_map().values()):
            self.remove(key.fd)
        self._selector.close()
