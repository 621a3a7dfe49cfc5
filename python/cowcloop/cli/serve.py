"""serve and attach: a device over NBD, in the foreground or in the background."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import COWS, IMAGE, command
from cowcloop.cli.device_options import LOG, check_device, check_log, options_of, panels_of
from cowcloop.options import UBLK, Option, ServerKeywords, Tls, table

if TYPE_CHECKING:
    from cowcloop.server.options import ServeOptions

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


def _served(function: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options that serve and attach have in common."""
    return IMAGE(COWS(options_of(ServerKeywords, Tls)(LOG(function))))


@command("serve", option_groups={"cowcloop serve": panels_of(ServerKeywords, Tls)})
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
    device is read-only. Arguments after -- go to nbdkit unchanged.

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
    if print_command and options.by_ublk:
        raise click.UsageError("--print-command is for nbdkit, and --device=ublk runs none")
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


@command("attach", option_groups={"cowcloop attach": panels_of(ServerKeywords, Tls)})
@_served
@click.pass_obj
def attach_command(state: console.State, /, log: str | None, **values: Any) -> None:
    """Serve IMAGE over NBD in the background, changes going to COW.

    Prints the NBD URI (or the device, with --device) and returns as soon as clients can connect.
    "cowcloop list" shows it, "cowcloop detach" ends it. Its messages go to the system log, or to
    the file of --log. Arguments after -- go to nbdkit unchanged.

    \b
    Examples:
      cowcloop attach chicken chicken.cow
      uri=$(cowcloop attach chicken chicken.cow)
      cowcloop attach chicken c.cow --device=ublk
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
        # The user does not know its address, and could not end it.
        server.detach(entry)
        raise


def _check_nbdkit_args(words: tuple[str, ...], background: bool) -> None:
    """Refuse options of nbdkit's that cannot work here."""
    refused = {**_REFUSED, **_REFUSED_IN_BACKGROUND} if background else _REFUSED
    for word in words:
        option = word.partition("=")[0]
        for names, why in refused.items():
            # A long option may be abbreviated; a short one may be followed by its value or others.
            if option.startswith("--"):
                found = any(name.startswith(option) for name in names.split())
            else:
                found = option.startswith(tuple(names.split()))
            if found:
                raise click.UsageError(f"{word} behind --: {why}")


def _options(
    state: console.State, values: dict[str, Any], *, background: bool = False
) -> ServeOptions:
    from cowcloop.server.options import ServeOptions

    if values["tcp"] is not None and values["unix"] is not None:
        raise click.UsageError("--unix and --tcp exclude each other")
    if values["device"] == UBLK:
        _check_ublk(state, values)
    if values["tcp"] is not None and values["device"] is not None:
        raise click.UsageError("--device needs a Unix socket: leave out --tcp")
    if values["sessions"] is None:
        for name in ("max_sessions", "session_quota"):
            if values[name] is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} needs --sessions")
        if values["reset_on_boot"]:
            raise click.UsageError("--reset-on-boot needs --sessions")
    elif values["cows"]:
        raise click.UsageError("--sessions: each session has its own cowfile: leave out COW")
    if values["boot_gap"] is not None and not values["reset_on_boot"]:
        raise click.UsageError("--boot-gap needs --reset-on-boot")
    _check_nbdkit_args(state.nbdkit_args, background)
    secured = {name: values.pop(_flag(option)) for name, option in table(Tls).items()}
    try:
        tls = Tls(**secured)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    check_device(values)
    if values["tcp"] is not None:
        _warn_of_all_interfaces(*values["tcp"])
    return ServeOptions.of(
        values.pop("image"),
        values.pop("cows"),
        tls=tls,
        nbdkit_args=state.nbdkit_args,
        nbdkit_verbose=console.levels.verbose > 1,
        **values,
    )


def _check_ublk(state: console.State, values: dict[str, Any]) -> None:
    """Refuse what is for NBD alone."""
    given = [name for name in ("unix", "tcp", "sessions") if values[name] is not None]
    given += [name for name in (_flag(option) for option in table(Tls).values()) if values[name]]
    if given:
        option = given[0].replace("_", "-")
        raise click.UsageError(f"--{option} is for NBD, and --device=ublk serves no NBD")
    if state.nbdkit_args:
        raise click.UsageError(f"{state.nbdkit_args[0]} behind --: --device=ublk runs no nbdkit")


def _flag(option: Option) -> str:
    return option.flag.removeprefix("--").replace("-", "_")


def _warn_of_all_interfaces(host: str, port: int) -> None:
    from cowcloop.server.address import is_all_interfaces

    if is_all_interfaces(host):
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        console.warning(
            f"--tcp {address} listens on all interfaces: every client that reaches this machine "
            "can connect"
        )
