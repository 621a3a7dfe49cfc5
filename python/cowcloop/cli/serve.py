"""serve and attach: a device over NBD, in the foreground or in the background."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import COWS, DIRECTORY, IMAGE, PATH, SIZE, command
from cowcloop.files import MEMORY, among
from cowcloop.sizes import format_size
from cowcloop.source import file_of

if TYPE_CHECKING:
    from cowcloop.server.options import ServeOptions

_ADDRESSES = (
    click.option("-U", "--unix", type=PATH, metavar="SOCKET", help="Listen on this Unix socket."),
    click.option(
        "--tcp",
        metavar="PORT|HOST:PORT",
        help="Listen on a TCP port, of 127.0.0.1 unless HOST is given (0.0.0.0, [::] or *: of all "
        "interfaces); port 0 takes a free one.",
    ),
)

# Those of a device, however it is used.
DEVICE_OPTIONS = (
    click.option(
        "--device", type=PATH, metavar="/dev/nbdN", help="Connect this kernel device to it."
    ),
    click.option("--read-only", is_flag=True, help="Refuse writes, also with a COW."),
    click.option(
        "--repair", is_flag=True, help="Take a COW that the old kernel driver left dirty."
    ),
    click.option(
        "--cache",
        type=SIZE,
        metavar="SIZE",
        help="Memory for decompressed blocks (default: 1/16 of all, 64M to 512M).",
    ),
    click.option(
        "--threads", type=click.IntRange(1, 1024), metavar="N", help="Decompressing threads."
    ),
    click.option(
        "--memory-limit", type=SIZE, metavar="SIZE", help="Most that a :memory: overlay may take."
    ),
    click.option(
        "--size", type=SIZE, metavar="SIZE", help="Size of the device with a new COW, if larger."
    ),
    click.option(
        "--preload", type=click.IntRange(0), metavar="N", help="Read N blocks into the cache first."
    ),
    click.option("--strict", is_flag=True, help="Check each block whole before any of it is read."),
)

_SERVER_OPTIONS = (
    click.option(
        "--sessions",
        type=DIRECTORY,
        metavar="DIR",
        help="Each export NAME is a session with the cowfile DIR/NAME.cow.",
    ),
    click.option(
        "--max-sessions", type=click.IntRange(1), metavar="N", help="Sessions there may be."
    ),
    click.option(
        "--session-quota", type=SIZE, metavar="SIZE", help="Space a session's cowfile may take."
    ),
    click.option(
        "--tls",
        type=click.Choice(["off", "on", "require"]),
        help="nbdkit's --tls; require with any of the three below.",
    ),
    click.option(
        "--tls-certificates", type=DIRECTORY, metavar="DIR", help="nbdkit's --tls-certificates."
    ),
    click.option("--tls-psk", type=PATH, metavar="FILE", help="nbdkit's --tls-psk."),
    click.option("--tls-verify-peer", is_flag=True, help="nbdkit's --tls-verify-peer."),
)

# Options of nbdkit's, and why they cannot be given to it.
_REFUSED = {
    "-P --pidfile --pid-file": "cowcloop uses nbdkit's pidfile itself",
    "-V --version --help --dump-config --dump-plugin --long-options --short-options": (
        "nbdkit answers that and serves nothing: ask it without cowcloop"
    ),
    "-U --unix": "use cowcloop's own --unix",
    "-p --port -i --ipaddr --ip-addr": "use cowcloop's own --tcp",
    "-s --single --stdin --vsock": "cowcloop serves on a Unix socket or TCP port",
    "--tls --tls-certificates --tls-psk --tls-verify-peer": "give it before the --",
    "-o --oldstyle --old-style": "cowcloop serves by the newstyle protocol only",
}
_REFUSED_IN_BACKGROUND = {
    "-f --foreground --no-fork --exit-with-parent --run": (
        "attach serves in the background: use cowcloop serve"
    ),
}

LOG = click.option("--log", type=PATH, metavar="FILE", help="Append the server's messages to FILE.")


def _served(function: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options that serve and attach have in common."""
    for option in reversed((*_ADDRESSES, *DEVICE_OPTIONS, *_SERVER_OPTIONS, LOG)):
        function = option(function)
    return IMAGE(COWS(function))


@command("serve")
@_served
@click.option("--exit-with-parent", is_flag=True, help="End when the calling process ends.")
@click.option("--print-command", is_flag=True, help="Print nbdkit's command line; run nothing.")
@click.pass_obj
def serve_command(
    state: console.State,
    /,
    exit_with_parent: bool,
    print_command: bool,
    log: str | None,
    **values: Any,
) -> None:
    """Serve IMAGE over NBD until Ctrl-C or SIGTERM, changes going to COW.

    Prints one line, the NBD URI, when clients can connect. The last COW is written, and created
    when it is missing; :memory: keeps the changes in memory and forgets them. Without COW the
    device is read-only. What follows -- goes to nbdkit as it is.

    \b
    Examples:
      cowcloop serve chicken
      cowcloop serve chicken chicken.cow -U /tmp/c
      cowcloop serve chicken :memory: --tcp 10809
      cowcloop serve chicken --sessions dir
      cowcloop serve chicken -- --filter=stats statsfile=stats.txt
    """
    from cowcloop.cli.foreground import run

    options = _options(state, values)
    check_log(options, log)
    if print_command:
        _print_command(options)
        return
    run(options, log=log, exit_with_parent=exit_with_parent)


def _print_command(options: ServeOptions) -> None:
    """The command line for a shell; without our own channels to the process that starts it."""
    import shlex

    from cowcloop.server.address import Address, TcpAddress, UnixAddress
    from cowcloop.server.command import nbdkit_command
    from cowcloop.server.options import absolute

    address: Address
    if options.tcp is not None:
        address = TcpAddress(*options.tcp)
    else:
        # nbdkit's name for a private socket that it makes itself.
        address = UnixAddress("-" if options.unix is None else absolute(options.unix))
    console.result(shlex.join(nbdkit_command(options, address, foreground=True)))


@command("attach")
@_served
@click.pass_obj
def attach_command(state: console.State, /, log: str | None, **values: Any) -> None:
    """Serve IMAGE over NBD in the background, changes going to COW.

    Prints the NBD URI (or the device, with --device) and returns as soon as clients can connect.
    "cowcloop list" shows it, "cowcloop detach" ends it. Its messages go to the system log, or to
    the file of --log. What follows -- goes to nbdkit as it is.

    \b
    Examples:
      cowcloop attach chicken chicken.cow
      uri=$(cowcloop attach chicken chicken.cow)
      cowcloop attach chicken c.cow --device /dev/nbd0
      cowcloop detach --all
    """
    from cowcloop import server
    from cowcloop.server.interrupts import noted_interrupts

    options = _options(state, values, background=True)
    check_log(options, log)
    with noted_interrupts() as interrupts:
        entry = server.attach(options, report=console.report, loop=interrupts.loop(), log=log)
    assert entry.record is not None
    try:
        console.result(entry.record.device or entry.record.uri)
    except OSError:
        # Its address is not known to the user, who could not end it.
        server.detach(entry)
        raise


def check_device(values: dict[str, Any]) -> None:
    """Refuse what would have no effect without a cowfile to write, and warn of too much memory."""
    written = None if values["read_only"] or not values["cows"] else values["cows"][-1]
    if values["repair"] and written is None:
        raise click.UsageError("--repair needs a COW that may be written")
    if values["size"] is not None and written is None:
        raise click.UsageError("--size is for a new COW that may be written")
    if values["memory_limit"] is not None and written != MEMORY:
        raise click.UsageError("--memory-limit is for a :memory: COW that may be written")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("cache", "memory_limit"):
        if (values[name] or 0) > memory:
            console.warning(
                f"--{name.replace('_', '-')} {format_size(values[name])}: this machine has "
                f"{format_size(memory)} of memory: what is kept beyond it would end the server"
            )


def check_log(options: ServeOptions, log: str | None) -> None:
    """Refuse a log whose lines would go into an image or a cowfile."""
    from cowcloop import _core

    if log is None:
        return
    if among(log, (file_of(options.source), *options.cows)):
        raise click.UsageError(f"--log {log}: the image or a COW: name another file")
    kind = _core.kept(log)
    if kind is not None:
        raise click.UsageError(f"--log {log}: is a {kind}: name another file")


def _check_nbdkit_args(words: tuple[str, ...], background: bool) -> None:
    """Refuse options of nbdkit's that cannot work here."""
    refused = {**_REFUSED, **_REFUSED_IN_BACKGROUND} if background else _REFUSED
    for word in words:
        option = word.partition("=")[0]
        for names, why in refused.items():
            # A long one may be cut short; behind a short one its value or others may follow.
            if option.startswith("--"):
                found = any(name.startswith(option) for name in names.split())
            else:
                found = option.startswith(tuple(names.split()))
            if found:
                raise click.UsageError(f"{word} behind --: {why}")


def _options(
    state: console.State, values: dict[str, Any], *, background: bool = False
) -> ServeOptions:
    from cowcloop.server.address import is_all_interfaces, parse_tcp
    from cowcloop.server.options import ServeOptions, Tls

    tcp = values.pop("tcp")
    if tcp is not None and values["unix"] is not None:
        raise click.UsageError("--unix and --tcp exclude each other")
    if tcp is not None and values["device"] is not None:
        raise click.UsageError("--device needs a Unix socket: leave out --tcp")
    if values["sessions"] is None:
        for name in ("max_sessions", "session_quota"):
            if values[name] is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} needs --sessions")
    elif values["cows"]:
        raise click.UsageError("--sessions: each session has its own cowfile: leave out COW")
    _check_nbdkit_args(state.nbdkit_args, background)
    secured = {
        "mode": values.pop("tls"),
        "certificates": values.pop("tls_certificates"),
        "psk": values.pop("tls_psk"),
        "verify_peer": values.pop("tls_verify_peer"),
    }
    try:
        tls = Tls(**secured)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        address = None if tcp is None else parse_tcp(tcp)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--tcp") from None
    check_device(values)
    if address is not None and is_all_interfaces(address[0]):
        console.warning(
            f"--tcp {tcp} listens on all interfaces: every client that reaches this machine"
            " can connect"
        )
    image = os.fspath(values.pop("image"))
    return ServeOptions(
        image=image,
        cows=tuple(values.pop("cows")),
        tcp=address,
        tls=tls,
        nbdkit_args=state.nbdkit_args,
        nbdkit_verbose=console.levels.verbose > 1,
        **values,
    )
