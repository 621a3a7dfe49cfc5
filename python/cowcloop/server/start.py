"""Starting nbdkit for a device, in the foreground or in the background."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

from cowcloop import registry
from cowcloop.files import MEMORY
from cowcloop.server import nbd_client, units
from cowcloop.server.address import Address, TcpAddress, UnixAddress, free_port
from cowcloop.server.errors import ServerError
from cowcloop.server.loop import Loop
from cowcloop.server.options import ServeOptions, absolute
from cowcloop.server.process import Nbdkit, Report

# Another program may take a free port before nbdkit does; each attempt takes another port.
_PORT_ATTEMPTS = 10

# What nbdkit has open with a few clients, without the cowfiles.
_OPEN_FILES = 32


def attach(
    options: ServeOptions,
    *,
    report: Report,
    loop: Loop | None = None,
    log: str | None = None,
    keep: bool = True,
) -> registry.Entry:
    """Serve a device from a process that outlives this one; returns when it is ready.

    Without `keep` the caller has systemd end it in order (units.keep), when more is known of it.
    """
    with started(options, loop=loop or Loop(), report=report, background=True, log=log) as (
        nbdkit,
        entry,
    ):
        if keep:
            units.keep(entry)
        nbdkit.release()
    nbdkit.abandon()
    return entry


@contextlib.contextmanager
def started(
    options: ServeOptions,
    *,
    loop: Loop,
    report: Report,
    background: bool = False,
    log: str | None = None,
) -> Iterator[tuple[Nbdkit, registry.Entry]]:
    """A device that answers, connected to its kernel device, and its entry in the registry.

    Nothing is left of it when the block fails.
    """
    entry = registry.create()
    nbdkit = None
    try:
        nbdkit = start(options, entry, loop=loop, report=report, background=background, log=log)
        record = record_of(options, nbdkit)
        if options.device is not None and record.socket is not None:
            nbd_client.connect(options.device, record.socket)
        yield nbdkit, entry.write(record)
    except BaseException:
        if nbdkit is not None:
            nbdkit.abort()
        entry.release()
        entry.wait_until_gone()
        entry.remove()
        if nbdkit is not None:
            nbdkit.address.remove()
            nbdkit.abandon()
        raise
    entry.release()


def start(
    options: ServeOptions,
    entry: registry.NewEntry,
    *,
    loop: Loop,
    report: Report,
    background: bool = False,
    log: str | None = None,
) -> Nbdkit:
    """A process whose device answers; ServerError when it cannot, and nothing is left then."""
    _check_limit(options)
    if options.device is not None:
        nbd_client.check(options.device)
    attempts = _PORT_ATTEMPTS if options.tcp is not None and options.tcp[1] == 0 else 1
    while True:
        attempts -= 1
        address = _address(options, entry)
        address.check()
        nbdkit = Nbdkit(
            options, address, entry, loop=loop, report=report, background=background, log=log
        )
        try:
            if nbdkit.wait_until_ready():
                return nbdkit
        except BaseException:
            nbdkit.abort()
            nbdkit.abandon()
            address.remove()
            raise
        reason = nbdkit.failure() or "nbdkit ended at once and did not say why"
        nbdkit.abandon()
        address.remove()
        if not (attempts and nbdkit.address_in_use):
            raise ServerError(reason)


def record_of(options: ServeOptions, nbdkit: Nbdkit) -> registry.Record:
    """What the registry keeps about a device that is ready."""
    if nbdkit.pid is None:
        raise ServerError("nbdkit did not report its process number")
    return registry.Record(
        pid=nbdkit.pid,
        uri=nbdkit.address.uri(tls=options.tls.mode == "require"),
        socket=nbdkit.address.unix,
        device=options.device,
        image=absolute(options.image),
        cowfiles=[cow if cow == MEMORY else absolute(cow) for cow in options.cows],
        read_only=options.read_only or not (options.cows or options.sessions),
        sessions=None if options.sessions is None else absolute(options.sessions),
        all_interfaces=nbdkit.address.on_all_interfaces,
    )


def _check_limit(options: ServeOptions) -> None:
    """Refuse to start what would have no descriptor left for a client, and let it wait."""
    needed = _OPEN_FILES + len(options.cows)
    # The plugin raises the soft limit to this one.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise ServerError(
            f"a process may have {limit} files open, and a server needs {needed}: "
            "raise the limit (ulimit -n)"
        )


def _address(options: ServeOptions, entry: registry.NewEntry) -> Address:
    if options.tcp is not None:
        host, port = options.tcp
        return TcpAddress(host, port or free_port(host))
    if options.unix is not None:
        return UnixAddress(absolute(options.unix))
    return UnixAddress(str(entry.path / "nbd.sock"))
