"""A slow line to a server of this machine: a TCP proxy with a rate and a delay.

The kernels that benchmarks run on seldom have netem. As a program, ``line.py PORT RATE DELAY``
prints the port on which it leads to another one.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Seconds that the line may be behind, and catch up: no program wakes at the very moment.
_SLACK = 0.005
#: Bytes that are sent on at a time take the line so long, in seconds; and the bounds of them.
_PIECE_SECONDS = 0.004
_PIECES = (4 << 10, 256 << 10)


@dataclass(frozen=True)
class Line:
    """Bytes a second of all answers together, and seconds that each request takes longer."""

    rate: float
    delay: float

    @contextmanager
    def to(self, port: int) -> Iterator[int]:
        """The port of a proxy that leads to another port of this machine."""
        command = [sys.executable, __file__, str(port), str(self.rate), str(self.delay)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield int(process.stdout.readline())
            finally:
                process.kill()


class _Proxy:
    def __init__(self, port: int, line: Line) -> None:
        self._port, self._line = port, line
        least, most = _PIECES
        self._piece = int(min(most, max(least, line.rate * _PIECE_SECONDS)))
        self._free = 0.0

    async def lead(self, near: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        """Serve a client until either side ends."""
        far, onward = await asyncio.open_connection("127.0.0.1", self._port)
        ways = {asyncio.ensure_future(self._ask(near, onward))}
        ways.add(asyncio.ensure_future(self._answer(far, out)))
        _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in left:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for side in (onward, out):
            side.close()

    async def _ask(self, near: asyncio.StreamReader, onward: asyncio.StreamWriter) -> None:
        # A client that asks again before it has its answer waits for the delay by itself.
        while data := await near.read(64 << 10):
            await asyncio.sleep(self._line.delay)
            onward.write(data)
            await onward.drain()

    async def _answer(self, far: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        while data := await far.read(self._piece):
            self._free = max(self._free, time.monotonic() - _SLACK) + len(data) / self._line.rate
            wait = self._free - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            out.write(data)
            await out.drain()


async def _serve(port: int, line: Line) -> None:
    server = await asyncio.start_server(_Proxy(port, line).lead, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Line(float(sys.argv[2]), float(sys.argv[3]))))
