"""Why a device cannot be served, as an exception of the right kind."""

from __future__ import annotations

from cowcloop import _core
from cowcloop.errors import CowcloopError
from cowcloop.server.errors import ServerError, of_kind, of_reason
from cowcloop.server.options import ServeOptions
from cowcloop.source import shown


def explained(error: ServerError, options: ServeOptions) -> CowcloopError:
    """The error of a server that did not start, as opening the device here would raise it.

    The server said why in words alone. It is opened once more, read-only, and what is said of it
    here counts where that is the same.
    """
    try:
        _core.Device(options.source, list(options.cows), read_only=True).close()
    except CowcloopError as found:
        # What to do about it is a command there, and an argument of open() here.
        if str(error) == found.problem or str(error).startswith(f"{found.problem}; "):
            return of_kind(found)
    return of_reason(str(error), (shown(options.image), *options.cows))
