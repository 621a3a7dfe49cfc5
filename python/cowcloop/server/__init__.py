"""The life cycle of served devices: nbdkit or cowcloopd started, watched and ended.

`serve()` is the Python interface; the command line uses the same parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cowcloop.files import check_cows, refuse_mode
from cowcloop.options import ServeKeywords, Tls, check_keywords, keywords_of
from cowcloop.server.errors import ServerError
from cowcloop.server.foreground import Server
from cowcloop.server.options import ServeOptions
from cowcloop.server.reason import explained
from cowcloop.server.recover import recover
from cowcloop.server.requests import failures, request, sync
from cowcloop.server.start import attach
from cowcloop.server.stop import check_kept, detach

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath
    from typing_extensions import Unpack

__all__ = [
    "ServeOptions",
    "Server",
    "ServerError",
    "Tls",
    "attach",
    "check_kept",
    "detach",
    "failures",
    "recover",
    "request",
    "serve",
    "sync",
]


@keywords_of(ServeKeywords, nbdkit_args=())
def serve(image: StrOrBytesPath, *cows: StrOrBytesPath, **given: Unpack[ServeKeywords]) -> Server:
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
    check_keywords("serve", ServeKeywords, given)
    if given.get("tcp") is not None and given.get("unix") is not None:
        raise ValueError("unix and tcp exclude each other")
    refuse_mode(cows)
    options = ServeOptions.of(image, cows, **given)
    check_cows(options.image, options.cows)
    server = Server(options)
    try:
        server.start()
    except ServerError as error:
        raise explained(error, options) from None
    server.run_in_background()
    return server
