"""Starting the server of a device, in the foreground or in the background."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from typing import Any

from cowcloop import registry
from cowcloop.files import MEMORY
from cowcloop.options import DIRECTORY, PATH, ImageKeywords, table
from cowcloop.server import nbd_client, units
from cowcloop.server.address import (
    Address,
    FuseAddress,
    TcpAddress,
    UblkAddress,
    UnixAddress,
    free_port,
)
from cowcloop.server.daemon import Daemon
from cowcloop.server.errors import ServerError
from cowcloop.server.loop import Loop
from cowcloop.server.nbdkit import Nbdkit
from cowcloop.server.options import ServeOptions, absolute
from cowcloop.server.process import Process, Report
from cowcloop.source import shown

# Another program may take a free port before nbdkit does; each attempt takes another port.
_PORT_ATTEMPTS = 10

# The class of each program's process.
_PROCESSES: dict[str, type[Process]] = {"nbdkit": Nbdkit, "cowcloopd": Daemon}

#: Where in its entry a device is a file.
FILE_FOLDER = "fuse"

# What a server has open with a few clients, without the cowfiles.
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
        process,
        entry,
    ):
        if keep:
            units.keep(entry)
        process.release()
    process.abandon()
    return entry


@contextlib.contextmanager
def started(
    options: ServeOptions,
    *,
    loop: Loop,
    report: Report,
    background: bool = False,
    log: str | None = None,
) -> Iterator[tuple[Process, registry.Entry]]:
    """A device that answers, connected to its kernel device, and its entry in the registry.

    Nothing is left of it when the block fails.
    """
    entry = registry.create()
    process = None
    try:
        process = start(options, entry, loop=loop, report=report, background=background, log=log)
        record = record_of(options, process)
        if options.nbd_device is not None and record.socket is not None:
            nbd_client.connect(options.nbd_device, record.socket)
        yield process, entry.write(record)
    except BaseException:
        if process is not None:
            process.abort()
        entry.release()
        entry.wait_until_gone()
        entry.remove()
        if process is not None:
            process.address.remove()
            process.abandon()
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
) -> Process:
    """A process whose device answers; ServerError when it cannot, and nothing is left then."""
    _check_limit(options)
    if options.nbd_device is not None:
        nbd_client.check(options.nbd_device)
    attempts = _PORT_ATTEMPTS if options.tcp is not None and options.tcp[1] == 0 else 1
    while True:
        attempts -= 1
        address = _address(options, entry)
        address.check()
        process = _PROCESSES[address.program](
            options, address, entry, loop=loop, report=report, background=background, log=log
        )
        try:
            if process.wait_until_ready():
                return process
        except BaseException:
            process.abort()
            process.abandon()
            address.remove()
            raise
        reason = process.failure() or f"{address.program} ended at once and did not say why"
        process.abandon()
        address.remove()
        if not (attempts and process.address_in_use):
            raise ServerError(reason)


def record_of(options: ServeOptions, process: Process) -> registry.Record:
    """What the registry keeps about a device that is ready."""
    if process.pid is None:
        raise ServerError(f"{process.address.program} did not report its process number")
    uri = process.address.uri(tls=options.tls.mode == "require")
    device = process.device if options.by_ublk else options.device
    name = shown(options.image)
    return registry.Record(
        pid=process.pid,
        uri=device if device is not None and options.by_ublk else uri,
        socket=process.address.unix,
        device=device,
        image=absolute(name),
        cowfiles=[cow if cow == MEMORY else absolute(cow) for cow in options.cows],
        read_only=options.read_only or not (options.cows or options.sessions),
        sessions=None if options.sessions is None else absolute(options.sessions),
        all_interfaces=process.address.on_all_interfaces,
        program=process.address.program,
        supervised=process.supervised,
        irreplaceable=process.irreplaceable,
        source=None if name == options.image else options.image,
        image_options=_image_options(options),
    )


def _image_options(options: ServeOptions) -> dict[str, Any]:
    """How the image is read, for a command in another directory."""
    known = table(ImageKeywords)
    found = {name: value for name, value in options.given.items() if name in known}
    for name, value in found.items():
        if known[name].kind in (PATH, DIRECTORY):
            found[name] = absolute(value)
    return found


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
    if options.as_file:
        return FuseAddress(str(entry.path / FILE_FOLDER))
    if options.by_ublk:
        return UblkAddress()
    if options.tcp is not None:
        host, port = options.tcp
        return TcpAddress(host, port or free_port(host))
    if options.unix is not None:
        return UnixAddress(absolute(options.unix))
    return UnixAddress(str(entry.path / "nbd.sock"))
