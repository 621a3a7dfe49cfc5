"""The served devices: all of them, and the one that an address means."""

from __future__ import annotations

import os
from pathlib import Path

from cowcloop import mounts
from cowcloop.nbd_uri import export_name, place_of
from cowcloop.registry import entry as each
from cowcloop.registry import record as records
from cowcloop.registry import unit_devices
from cowcloop.registry.entry import Entry
from cowcloop.registry.errors import RegistryError
from cowcloop.registry.place import directory, locked
from cowcloop.registry.record import Record


def entries() -> list[Entry]:
    """The served devices, oldest first; entries whose process is gone are removed.

    An entry whose mount is still there stays, so that it can be unmounted.
    """
    root = directory()
    found = []
    with locked(root):
        for path in sorted(item for item in root.iterdir() if item.is_dir()):
            lock = each.try_lock(path)
            record = records.read(path)
            if lock is not None:
                if record is not None and _left_over(path, record):
                    found.append(Entry(path, record))
                else:
                    each.remove(path)
                os.close(lock)
                continue
            # Without a record it is still being started.
            if record is not None:
                found.append(Entry(path, record))
            elif not (path / each.LOCK).exists():
                each.remove(path)
    found += unit_devices.entries()
    return sorted(found, key=lambda entry: entry.record.started if entry.record else 0.0)


def find(target: str) -> Entry:
    """The served device with this address: NBD URI, socket, block device, mount point or name.

    An address may be written otherwise than it was printed, as long as it means one device.
    """
    known = entries()
    path = os.path.realpath(target)
    place = place_of(target)
    alike = []
    for entry in known:
        record = entry.record
        if record is None:
            continue
        if target in (record.uri, entry.id):
            return entry
        if path in {os.path.realpath(p) for p in (record.socket, record.device, record.mount) if p}:
            return entry
        if place is not None and place == place_of(record.uri):
            alike.append(entry)
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise RegistryError(
            f"{target}: this may be {len(alike)} devices: name one as cowcloop list shows it"
        )
    if not known:
        raise RegistryError(f"{target}: no such served device (none is served)")
    raise RegistryError(f"{target}: no such served device (cowcloop list shows them)")


def find_whole(target: str, action: str) -> Entry:
    """As `find`, for what concerns all of a device: the URI of one session of it is refused."""
    entry = find(target)
    session = session_in(target, entry)
    if session is not None:
        raise RegistryError(
            f"{target}: names the session {session}: {action} is for the device of all sessions: "
            "leave the name out"
        )
    return entry


def session_in(target: str, entry: Entry) -> str | None:
    """The session that a URI of this device has as its export name.

    A device without sessions is the same under every name.
    """
    if entry.record is None or not entry.record.sessions:
        return None
    return export_name(target)


def _left_over(path: Path, record: Record) -> bool:
    """Whether a server that is dead has left anything that a command can end."""
    if record.program == "cowcloopd" and record.device and os.path.exists(record.device):
        return True
    if record.mount is None:
        return False
    return record.is_mounted() or mounts.inside(path) or bool(mounts.loop_devices(path))
