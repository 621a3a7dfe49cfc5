"""Clients of a server that all have a request under way at once, in one thread."""

from __future__ import annotations

import select
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Union

from support import nbdclient
from support.server import wait_until

#: So many bytes from an offset on are to be read, or these bytes are to be written there.
Request = tuple[int, Union[int, bytes]]
#: What a client does: it asks for one request after the other, and is sent each one's answer. An
#: error of the server's is raised in it.
Work = Generator[Request, bytes, None]


class Client:
    """One of them."""

    def __init__(self, handle: Any, work: Work) -> None:
        self.handle = handle
        #: Requests that the server has answered.
        self.answered = 0
        self.ended = False
        self._work = work
        self._begin(lambda: next(work))

    def _begin(self, asks: Callable[[], Request]) -> None:
        try:
            at, what = asks()
        except StopIteration:
            self.ended = True
            return
        buffer = nbdclient.module().Buffer
        if isinstance(what, int):
            self._buffer = buffer(what)
            self._cookie = self.handle.aio_pread(self._buffer, at)
        else:
            self._buffer = buffer.from_bytearray(bytearray(what))
            self._cookie = self.handle.aio_pwrite(self._buffer, at)

    def events(self) -> int:
        """What its connection waits for."""
        direction, nbd = self.handle.aio_get_direction(), nbdclient.module()
        wanted = select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0
        return wanted | (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0)

    def happened(self, events: int) -> None:
        """Something has come about on its connection."""
        direction, nbd = self.handle.aio_get_direction(), nbdclient.module()
        if events & ~select.POLLOUT and direction & nbd.AIO_DIRECTION_READ:
            self.handle.aio_notify_read()
        elif events & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
            self.handle.aio_notify_write()

    def go_on(self) -> None:
        """Send the next request, if the last one has its answer."""
        work = self._work
        try:
            if not self.handle.aio_command_completed(self._cookie):
                return
        except nbdclient.module().Error as error:
            failure = error
            self._begin(lambda: work.throw(failure))
        else:
            data = bytes(self._buffer.to_bytearray())
            self._begin(lambda: work.send(data))
        self.answered += 1


@dataclass
class Crowd:
    """All of them, by name.

    The module's own reads hold the GIL while they wait, so that threads would take turns, and a
    server that is a thread of this process would not answer.
    """

    clients: dict[str, Client]

    def at_work(self) -> list[Client]:
        """Those that have not come to their end."""
        return [client for client in self.clients.values() if not client.ended]

    def step(self, patience: int = 1000) -> None:
        """Wait until something comes about, so many milliseconds at most; let all go on."""
        looked_at = select.poll()
        by_fd = {client.handle.aio_get_fd(): client for client in self.at_work()}
        for fd, client in by_fd.items():
            looked_at.register(fd, client.events())
        for fd, events in looked_at.poll(patience):
            by_fd[fd].happened(events)
        for client in by_fd.values():
            client.go_on()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Go on until a condition holds."""

        def holds() -> bool:
            self.step(20)
            return condition()

        wait_until(holds, what, pause=0)

    def finish(self) -> None:
        """Go on until all have come to their end."""
        self.until(lambda: not self.at_work(), "the end of all clients")


def read_together(handles: Sequence[Any], places: Sequence[int], length: int) -> list[list[bytes]]:
    """What each handle reads at these offsets, one after the other; all handles at once."""
    found: list[list[bytes]] = [[] for _ in handles]

    def work(mine: list[bytes]) -> Work:
        for at in places:
            mine.append((yield at, length))

    pairs = enumerate(zip(handles, found))
    Crowd({f"{number}": Client(handle, work(mine)) for number, (handle, mine) in pairs}).finish()
    return found
