"""The life cycle of served devices: nbdkit started, watched and ended.

`serve()` is the Python interface; the command line uses the same parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cowcloop.files import check_cows, refuse_mode
from cowcloop.server.address import parse_tcp
from cowcloop.server.errors import ServerError
from cowcloop.server.foreground import Server
from cowcloop.server.options import ServeOptions, Tls
from cowcloop.server.reason import explained
from cowcloop.server.requests import failures, request, sync
from cowcloop.server.start import attach
from cowcloop.server.stop import check_kept, detach
from cowcloop.sizes import size_of

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath

__all__ = [
    "ServeOptions",
    "Server",
    "ServerError",
    "Tls",
    "attach",
    "check_kept",
    "detach",
    "failures",
    "request",
    "serve",
    "sync",
]


def serve(
    image: StrOrBytesPath,
    *cows: StrOrBytesPath,
    unix: StrOrBytesPath | None = None,
    tcp: str | int | None = None,
    device: str | None = None,
    read_only: bool = False,
    repair: bool = False,
    strict: bool = False,
    cache: int | str | None = None,
    threads: int | None = None,
    memory_limit: int | str | None = None,
    size: int | str | None = None,
    preload: int | None = None,
    sessions: StrOrBytesPath | None = None,
    max_sessions: int | None = None,
    session_quota: int | str | None = None,
    tls: Tls | None = None,
    nbdkit_args: Iterable[str] = (),
) -> Server:
    """Serve an image, with the cowfiles over it, to NBD clients until the server is closed.

    The image may be a file inside an ISO 9660 image, ``cd.iso:/KNOPPIX/KNOPPIX``. The last cowfile
    is written, and created when it is missing; ``":memory:"`` is a throw-away overlay; without one
    the device is read-only. It listens on a private Unix socket, or on `unix`
    (a path), or on `tcp` (a port or ``"HOST:PORT"``; port 0 picks a free one). Sizes are bytes or
    text such as ``"64M"``; `preload` counts blocks of the image. With `sessions`, a directory, each
    export name is a device of its own, with a cowfile there. What the server has to say goes to
    the logger ``cowcloop.server``.

    Raises ServerError when the device cannot be served, which is also what open() raises for the
    same reason (NotFoundError and with it FileNotFoundError, BusyError …), and ValueError for a
    wrong argument.
    """
    if tcp is not None and unix is not None:
        raise ValueError("unix and tcp exclude each other")
    refuse_mode(cows)
    names = tuple(os.fsdecode(cow) for cow in cows)
    check_cows(os.fsdecode(image), names)
    options = ServeOptions(
        image=os.fsdecode(image),
        cows=names,
        unix=None if unix is None else os.fsdecode(unix),
        tcp=None if tcp is None else parse_tcp(str(tcp)),
        device=device,
        read_only=read_only,
        repair=repair,
        strict=strict,
        cache=size_of(cache),
        threads=threads,
        memory_limit=size_of(memory_limit),
        size=size_of(size),
        preload=preload,
        sessions=None if sessions is None else os.fsdecode(sessions),
        max_sessions=max_sessions,
        session_quota=size_of(session_quota),
        tls=tls or Tls(),
        nbdkit_args=tuple(nbdkit_args),
    )
    server = Server(options)
    try:
        server.start()
    except ServerError as error:
        raise explained(error, options) from None
    server.run_in_background()
    return server
