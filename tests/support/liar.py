"""A web server of one image that lies as a test has it, and notes what it was asked for."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Optional

#: The date of every image.
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"

#: How the names end of what is never the image.
BESIDE = (".trace", ".verity")

#: What happens to a request: the name of a lie, or None for the truth.
Lie = Optional[str]


class Liar:
    """Serves `content` under any path; `lie` decides for each request, by its number and range."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.etag: str | None = f'"{hashlib.sha256(content).hexdigest()[:12]}"'
        self.date: str | None = DATE
        self.lie: Callable[[int, tuple[int, int]], Lie] = lambda number, asked: None
        #: whether a request is let in, by its path and headers
        self.lets_in: Callable[[str, dict[str, str]], bool] = lambda path, headers: True
        #: what lies beside the image: a file for each end of a path, one of BESIDE
        self.beside: dict[str, bytes] = {}
        #: the paths of requests for what may lie there
        self.elsewhere: list[str] = []
        #: seconds before each answer, and bytes a second of all answers together
        self.latency = 0.0
        self.rate: float | None = None
        #: first byte and the byte after the last of each request for the image
        self.asked: list[tuple[int, int]] = []
        self.heads: list[dict[str, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        #: set to let stalled answers go on
        self.go_on = threading.Event()
        self._lock = threading.Lock()
        self._line_free = 0.0
        liar = self

        class Handler(_Handler):
            owner = liar

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Where it serves its image."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/images/a.img"

    @property
    def trace(self) -> bytes | None:
        """What lies beside the image under its name and .trace."""
        return self.beside.get(".trace")

    @trace.setter
    def trace(self, content: bytes) -> None:
        self.beside[".trace"] = content

    def count(self, asked: tuple[int, int], heads: dict[str, str]) -> int:
        """Note a request; its number."""
        with self._lock:
            self.asked.append(asked)
            self.heads.append(heads)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            return len(self.asked) - 1

    def done(self) -> None:
        """An answer is out."""
        with self._lock:
            self.at_once -= 1

    def shape(self, length: int) -> None:
        """Wait until the line has taken so many bytes."""
        if self.rate is None:
            return
        with self._lock:
            begin = max(time.monotonic(), self._line_free)
            self._line_free = begin + length / self.rate
            until = self._line_free
        time.sleep(max(0.0, until - time.monotonic()))

    def start(self) -> None:
        """Serve from now on."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Serve no more; connections end."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: Liar
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.partition("?")[0].endswith(BESIDE):
            self._beside()
            return
        owner, size = self.owner, len(self.owner.content)
        first, end = 0, size
        if (asked := self.headers.get("Range", "")).startswith("bytes="):
            low, _, high = asked.removeprefix("bytes=").partition("-")
            first, end = int(low), min(size, int(high) + 1)
        number = owner.count((first, end), dict(self.headers.items()))
        try:
            lie = owner.lie(number, (first, end))
            time.sleep(owner.latency)
            heads = {name.lower(): value for name, value in self.headers.items()}
            if not owner.lets_in(self.path, heads):
                self._head(403, 0)
            elif lie is None:
                self._truth(first, end)
            else:
                getattr(self, f"_{lie}")(first, end)
        except ConnectionError:
            # The client has seen enough.
            self.close_connection = True
        finally:
            owner.done()

    def _beside(self) -> None:
        """Answer truly for another file than the image."""
        owner = self.owner
        owner.elsewhere.append(self.path)
        path = self.path.partition("?")[0]
        found = next((data for end, data in owner.beside.items() if path.endswith(end)), None)
        heads = {name.lower(): value for name, value in self.headers.items()}
        if not owner.lets_in(self.path, heads):
            self._head(403, 0)
            return
        if found is None:
            self._head(404, 0)
            return
        low, _, high = self.headers["Range"].removeprefix("bytes=").partition("-")
        first, end = int(low), min(len(found), int(high) + 1)
        time.sleep(owner.latency)
        where = f"bytes {first}-{end - 1}/{len(found)}"
        self._head(206, end - first, **{"Content-Range": where})
        with contextlib.suppress(ConnectionError):
            self._send(found[first:end])

    def _head(self, status: int, length: int, **more: str) -> None:
        self.send_response_only(status)
        heads = {"Content-Length": str(length), "ETag": self.owner.etag}
        heads["Last-Modified"] = self.owner.date
        for name, value in {**heads, **more}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _part(self, first: int, end: int, **more: str) -> None:
        where = f"bytes {first}-{end - 1}/{len(self.owner.content)}"
        self._head(206, end - first, **{"Content-Range": where, **more})

    def _send(self, data: bytes) -> None:
        for at in range(0, len(data), 16 << 10):
            piece = data[at : at + (16 << 10)]
            self.owner.shape(len(piece))
            self.wfile.write(piece)

    def _truth(self, first: int, end: int) -> None:
        wanted = self.headers.get("If-Match")
        since = self.headers.get("If-Unmodified-Since")
        if wanted not in (None, self.owner.etag) or (since or self.owner.date) != self.owner.date:
            self._head(412, 0)
            return
        self._part(first, end)
        self._send(self.owner.content[first:end])

    def _whole(self, _first: int, _end: int) -> None:
        self._head(200, len(self.owner.content))
        with contextlib.suppress(OSError):
            self.wfile.write(self.owner.content)

    def _half(self, first: int, end: int) -> None:
        self._part(first, end)
        self._send(self.owner.content[first : (first + end) // 2])
        self.close_connection = True

    def _short(self, first: int, end: int) -> None:
        middle = (first + end) // 2
        self._part(first, end, **{"Content-Length": str(middle - first)})
        self._send(self.owner.content[first:middle])

    def _empty(self, first: int, end: int) -> None:
        self._part(first, end, **{"Content-Length": "0"})

    def _elsewhere(self, first: int, end: int) -> None:
        self._part(first, end, **{"Content-Range": f"bytes 0-{end - first - 1}/{1 << 40}"})
        self._send(self.owner.content[: end - first])

    def _encoded(self, first: int, end: int) -> None:
        self._part(first, end, **{"Content-Encoding": "gzip"})
        self._send(self.owner.content[first:end])

    def _other(self, first: int, end: int) -> None:
        # It ignores If-Match, and has other bytes.
        self._part(first, end, ETag='"other"')
        self._send(bytes(end - first))

    def _huge(self, first: int, end: int) -> None:
        self._part(first, end, **{"Content-Range": f"bytes {first}-{end - 1}/{(1 << 64) - 1}"})
        self._send(self.owner.content[first:end])

    def _wrong(self, first: int, end: int) -> None:
        self._part(first, end)
        self._send(bytes(byte ^ 0x55 for byte in self.owner.content[first:end]))

    def _stall(self, first: int, end: int) -> None:
        self._part(first, end)
        self.wfile.write(self.owner.content[first : first + 100])
        self.owner.go_on.wait(30)
        self.close_connection = True

    def _reset(self, _first: int, _end: int) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.shutdown(socket.SHUT_RD)
        self.close_connection = True

    def _busy(self, _first: int, _end: int) -> None:
        self._head(503, 0, Retry_After="1")

    def _slower(self, _first: int, _end: int) -> None:
        self._head(429, 0, Retry_After="1")

    def _broken(self, _first: int, _end: int) -> None:
        self._head(500, 0)

    def _missing(self, _first: int, _end: int) -> None:
        self._head(404, 0)

    def _login(self, _first: int, _end: int) -> None:
        self._head(401, 0, WWW_Authenticate='Basic realm="images"')

    def _round(self, _first: int, _end: int) -> None:
        self._head(302, 0, Location=self.path + "x")


@contextlib.contextmanager
def liar(content: bytes) -> Iterator[Liar]:
    """One that serves as long as the block runs."""
    made = Liar(content)
    made.start()
    try:
        yield made
    finally:
        made.stop()
