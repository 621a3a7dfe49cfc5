"""detach, list, sync and recover: the devices that are served now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import rich_click as click

from cowcloop import states
from cowcloop.cli import console
from cowcloop.cli.base import DISCARD, JSON, PATH, command
from cowcloop.cli.completion import served
from cowcloop.cli.served import cowfiles, own_states, size_of
from cowcloop.sizes import format_size

if TYPE_CHECKING:
    from cowcloop.registry import Entry

# Seconds for a server to tell its figures; it answers them from memory.
_STATUS_TIMEOUT = 5.0

_TARGET = click.argument(
    "target", type=PATH, required=False, metavar="URI|SOCKET|DEVICE", shell_complete=served
)
_ALL = click.option("--all", "every", is_flag=True, help="All devices that this user serves.")


@command("detach")
@_TARGET
@_ALL
@DISCARD
def detach_command(target: str | None, every: bool, discard: bool) -> None:
    """Stop a served device; returns when everything is on disk.

    A device that "cowcloop mount" has mounted is refused: end it with "cowcloop umount".

    \b
    Examples:
      cowcloop detach "$uri"
      cowcloop detach /dev/nbd0
      cowcloop detach --all
    """
    from cowcloop import mount, server

    def detach(entry: Entry) -> None:
        mount.check_unmounted(entry)
        if entry.record is not None and entry.record.mount is not None:
            # Another program has unmounted it.
            mount.release(entry, discard=discard)
        else:
            failures = server.failures(entry)
            server.detach(entry, discard=discard)
            if failures:
                console.warning(_failed(entry, failures))

    _for_each(_chosen(target, every, "detach"), detach, "detached")


@command("sync")
@_TARGET
@_ALL
def sync_command(target: str | None, every: bool) -> None:
    """Bring everything that clients have written to disk now.

    It works through a mount as well, and without a device for all of them.

    \b
    Examples:
      cowcloop sync "$uri"
      cowcloop sync --all
    """
    from cowcloop import mount, server

    def sync(entry: Entry) -> None:
        mount.sync(entry)
        server.sync(entry)

    _for_each(_chosen(target, every or target is None, "sync"), sync, "on disk")


@command("recover")
@_TARGET
@_ALL
def recover_command(target: str | None, every: bool) -> None:
    """Put another server in the place of a device's own, under its users.

    They wait, and then go on: nothing that was acknowledged is lost. It is for a mount by FUSE or
    ublk, which has a supervisor; that does the same by itself when the server was killed, but not
    when it is stopped or hangs. After an upgrade the new server is of the new version.

    \b
    Examples:
      cowcloop recover /mnt/chicken
      cowcloop recover --all
    """
    from cowcloop import server

    _for_each(
        _chosen(target, every, "recover"),
        server.recover,
        "another server has taken over",
        replaced=True,
    )


@command("list")
@JSON
@click.option("--watch", is_flag=True, help="Update every second, until Ctrl-C.")
def list_command(as_json: bool, watch: bool) -> None:
    """List the served devices, and what they have done.

    A mount whose server has ended by itself is shown as broken: "cowcloop umount" cleans up.

    \b
    Examples:
      cowcloop list
      cowcloop list --json | jq -r '.[].uri'
      cowcloop list --watch
    """
    if watch:
        _watch(as_json)
        return
    devices = _all_devices()
    if as_json:
        console.result_json(devices)
    elif devices:
        console.table(_COLUMNS, [row for device in devices for row in _rows(device)])
    else:
        console.note("no device is served")


def _all_devices() -> list[dict[str, Any]]:
    from cowcloop import registry

    return [_describe(entry) for entry in registry.entries()]


def _watch(as_json: bool) -> None:
    if as_json:
        raise click.UsageError("--watch and --json exclude each other")
    if not sys.stdout.isatty():
        raise click.UsageError("--watch draws on a terminal; for a script there is --json")
    from cowcloop.cli import live_list

    live_list.watch(_all_devices)


def _chosen(target: str | None, every: bool, action: str) -> list[Entry]:
    from cowcloop import registry

    if (target is None) == (not every):
        raise click.UsageError("name one device (URI, SOCKET or DEVICE), or give --all")
    if target is None:
        known = registry.entries()
        # What systemd has started, systemd ends.
        return [entry for entry in known if entry.owner is None or action != "detach"]
    return [registry.find_whole(target, action)]


def _for_each(entries: list[Entry], action: Any, done: str, *, replaced: bool = False) -> None:
    """Act on every device, even when one fails; the last failure is raised.

    Of servers that are `replaced` none is waited for.
    """
    from cowcloop import CowcloopError
    from cowcloop.cli.waiting import waiting_for

    failure: CowcloopError | None = None
    for entry in entries:
        try:
            with waiting_for(entry, replaced=replaced):
                action(entry)
            console.note(f"{entry.record.uri if entry.record else entry.id}: {done}")
        except CowcloopError as error:
            if failure is not None:
                console.error(str(failure))
            failure = error
    if failure is not None:
        raise failure


def _failed(entry: Entry, failures: int) -> str:
    """The warning about a device that could not write all of its data."""
    assert entry.record is not None
    return (
        f"{entry.record.uri}: {failures} writes or flushes failed while it was served: what they "
        "held may not be in the cowfile"
    )


def _describe(entry: Entry) -> dict[str, Any]:
    """One device for --json: the record, then the figures of the running server."""
    from cowcloop import control, mount
    from cowcloop.control import ControlError

    record = entry.record
    assert record is not None
    device: dict[str, Any] = {
        "id": entry.id,
        "uri": record.uri,
        "socket": record.socket,
        "all_interfaces": record.all_interfaces,
        "device": record.device,
        "mount": record.mount,
        "via": record.via,
        "pid": record.pid,
        "started": record.started,
        "image": record.image,
        "read_only": record.read_only,
        "cowfiles": [{"path": path} for path in record.cowfiles],
    }
    try:
        device.update(control.status(entry.control, record, timeout=_STATUS_TIMEOUT))
        if device["pid"] != record.pid:
            device["supervisor"] = record.pid
    except ControlError as error:
        device["error"] = str(error)
    ended = mount.broken(entry)
    if ended is not None:
        device["error"] = f"{ended} has ended: cowcloop umount cleans up"
    return device


def _used(cow: dict[str, Any]) -> str:
    """Blocks in use, as sizes."""
    used, total = (format_size(size_of(cow, name)) for name in ("blocks_used", "blocks_total"))
    return f"{used} of {total}"


_COLUMNS = ("ADDRESS", "IMAGE", "COWFILE", "STATE", "IN USE", "BASE READS", "COW R/W", "CACHE HITS")


def _rows(device: dict[str, Any]) -> list[tuple[str, ...]]:
    """One line per device, and one more for each further cowfile; the written one comes first."""
    address = device["mount"] or device["device"] or device["uri"]
    if device["all_interfaces"]:
        address += " (all interfaces)"
    cache = device.get("cache", {})
    asked = cache.get("hits", 0) + cache.get("misses", 0)
    hits = f"{100 * cache['hits'] / asked:.0f} %" if asked else "-"
    reads = str(device["base"]["reads"]) if "base" in device else "-"
    rows: list[tuple[str, ...]] = []
    for number, cow in enumerate(cowfiles(device) or [{}]):
        first = number == 0
        words = [cow["state"]] if "state" in cow else []
        if first:
            words += own_states(device)
            if device.get("restarts"):
                words.append(f"recovered {device['restarts']} times")
        if "error" in device:
            words = [states.BROKEN if device["mount"] else states.NO_ANSWER]
        if cow.get("failures"):
            words.append(f"{cow['failures']} writes failed")
        used = _used(cow) if "blocks_used" in cow else "-"
        io = f"{cow['reads']}/{cow['writes']}" if "reads" in cow else "-"
        rows.append(
            (
                address if first else "",
                device["image"] if first else "",
                cow.get("path", "-"),
                ", ".join(words) or "-",
                used,
                reads if first else "",
                io,
                hits if first else "",
            )
        )
    return rows
