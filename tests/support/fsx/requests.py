"""Requests that are sent together over several connections of one device."""

from __future__ import annotations

import errno
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from support import nbdclient
from support.fsx.model import Change, Model

#: Requests of each kind among a hundred or so; there are lives of few flushes, and of none.
_KINDS = {"write": 40, "zero": 10, "trim": 10, "read": 20, "extents": 8}
_FLUSHES: tuple[dict[str, int], ...] = ({"flush": 7, "fua": 5}, {"flush": 1}, {"fua": 1}, {})
_CHANGES = ("write", "fua", "zero", "trim")
#: A part of the device: start and length.
Window = tuple[int, int]


@dataclass
class Request:
    """One request, and what became of it."""

    kind: str
    at: int = 0
    length: int = 0
    change: Change | None = None
    handle: Any = None
    cookie: int = 0
    buffer: Any = None
    extents: list[tuple[int, int]] = field(default_factory=list)
    #: 0 is success, ENOTCONN none at all.
    error: int = errno.ENOTCONN

    @property
    def end(self) -> int:
        return self.at + self.length


class Picker:
    """Makes up requests, of which those that are sent together do not overlap a change."""

    def __init__(self, rng: random.Random, windows: Sequence[Window]) -> None:
        self.rng = rng
        self.windows = windows
        self.kinds: dict[str, int] = {**_KINDS, **rng.choice(_FLUSHES)}

    def batch(self, most: int) -> list[Request]:
        chosen: list[Request] = []
        for _ in range(self.rng.randint(1, most)):
            kind = self.rng.choices(list(self.kinds), list(self.kinds.values()))[0]
            request = Request(kind)
            if kind != "flush" and not self._place(request, chosen):
                continue
            if kind in _CHANGES:
                stores = kind in ("write", "fua")
                data = self._data(request.length) if stores else bytes(request.length)
                request.change = Change(request.at, data, stores)
            chosen.append(request)
        return chosen

    def _place(self, request: Request, others: Sequence[Request]) -> bool:
        """Finds a place for it; now and then one that adjoins another request."""
        rng = self.rng
        start, size = rng.choice(self.windows)
        align = rng.choice((1, 1, 512, 1024, 4096))
        most = rng.choice((600, 3000, 3000, 16 << 10, 64 << 10))
        request.length = min(rng.randint(1, most // align + 1) * align, size)
        request.at = start + rng.randint(0, size - request.length) // align * align
        neighbours = [other for other in others if other.length]
        if neighbours and rng.random() < 0.4:
            request.at = rng.choice(neighbours).end
            (start, size) = next(w for w in self.windows if w[0] <= request.at <= sum(w))
            request.length = min(request.length, start + size - request.at)
        changes = request.kind in _CHANGES
        return request.length > 0 and not any(
            request.at < other.end and other.at < request.end
            for other in others
            if changes or other.change is not None
        )

    def _data(self, length: int) -> bytes:
        if self.rng.random() < 0.1:
            return bytes(length)
        return self.rng.randbytes(length)


class Clients:
    """The connections to one device."""

    def __init__(self, uri: str, model: Model, picker: Picker, count: int = 3) -> None:
        self.model = model
        self.picker = picker
        self.done: Counter[str] = Counter()
        self.handles = [nbdclient.connect(uri, extents=True) for _ in range(count)]
        self._sent: list[Request] = []

    def check(self, windows: Sequence[Window]) -> None:
        """Compares all of the device with what it may be."""
        handle = self.handles[0]
        for start, size in windows:
            for at in range(start, start + size, 4 << 20):
                length = min(4 << 20, start + size - at)
                self.model.check(at, bytes(handle.pread(length, at)))
        self.model.checked()

    def send(self, most: int) -> None:
        """Sends requests, and waits for none of them."""
        self._sent = self.picker.batch(most)
        self.model.begin([request.change for request in self._sent if request.change])
        for request in self._sent:
            request.handle = self.picker.rng.choice(self.handles)
            with suppress(nbdclient.module().Error):
                _send(request, self.picker.rng)

    def finish(self) -> None:
        """Waits for the answers, and judges them."""
        for request in self._sent:
            request.error = _outcome(request)
        answered = [request for request in self._sent if not request.error]
        self.done.update(request.kind for request in answered)
        lost = [request for request in self._sent if request.error == errno.ENOTCONN]
        self.done.update(f"unanswered {request.kind}" for request in lost)
        # Before the changes: a flush speaks of what had been acknowledged when it was sent.
        if any(request.kind in ("flush", "fua") for request in answered):
            self.model.flush()
        for request in answered:
            self._judge(request)
        for request in self._sent:
            if request.error and request.change:
                self._not_done(request, request.change)
        self._sent = []

    def _judge(self, request: Request) -> None:
        if request.change:
            self.model.write(request.change)
            if request.kind == "fua":
                self.model.forced(request.change)
        elif request.kind == "read":
            found = bytes(request.buffer.to_bytearray())
            known = self.model.read(request.at, request.length)
            assert found == known, f"{request.length} bytes at {request.at} read wrong"
        for start, length in request.extents:
            inside = min(start + length, request.end) - start
            assert not any(self.model.read(start, inside)), f"{inside} at {start} are no zeros"

    def _not_done(self, request: Request, change: Change) -> None:
        if request.error != errno.ENOTCONN:
            self.done[errno.errorcode[request.error]] += 1
        try:
            found = bytes(self.handles[0].pread(request.length, request.at))
        except nbdclient.module().Error:
            self.model.open.append(change)
        else:
            self.model.failed(change, found)


def _send(request: Request, rng: random.Random) -> None:
    nbd = nbdclient.module()
    handle, at, length = request.handle, request.at, request.length
    if request.kind in ("write", "fua"):
        assert request.change is not None
        # libnbd does not copy what it sends.
        request.buffer = nbd.Buffer.from_bytearray(bytearray(request.change.data))
        flags = nbd.CMD_FLAG_FUA if request.kind == "fua" else 0
        request.cookie = handle.aio_pwrite(request.buffer, at, flags=flags)
    elif request.kind == "zero":
        flags = rng.choice((0, nbd.CMD_FLAG_NO_HOLE))
        request.cookie = handle.aio_zero(length, at, flags=flags)
    elif request.kind == "trim":
        request.cookie = handle.aio_trim(length, at)
    elif request.kind == "read":
        request.buffer = nbd.Buffer(length)
        request.cookie = handle.aio_pread(request.buffer, at)
    elif request.kind == "flush":
        request.cookie = handle.aio_flush()
    else:

        def entry(_context: str, start: int, entries: list[int], _error: Any) -> int:
            for size, flags in zip(entries[::2], entries[1::2]):
                if flags & nbd.STATE_ZERO:
                    request.extents.append((start, size))
                start += size
            return 0

        request.cookie = handle.aio_block_status(length, at, entry)


def _outcome(request: Request) -> int:
    """Waits for the answer: 0, or the number of the error."""
    nbd = nbdclient.module()
    while request.cookie:
        try:
            if request.handle.aio_command_completed(request.cookie):
                return 0
        except nbd.Error as error:
            return error.errnum or errno.ENOTCONN
        try:
            request.handle.poll(-1)
        except nbd.Error:
            time.sleep(0.001)
    return errno.ENOTCONN
