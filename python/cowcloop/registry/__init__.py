"""The registry of served devices: one private directory per user, one entry in it per device.

An entry is a directory with ``lock``, ``device.json``, ``control.sock`` and, for a device that NBD
clients reach at no address of the user's choice, ``nbd.sock``. The lock file's flock is held by the
process that starts the device and inherited by the server, so it is held exactly as long as the
device is starting or served: no process number has to be trusted. A process that gets the lock of
an entry knows that the entry is stale. Entries are made and removed under the lock of the whole
directory, which is only held for a moment.
"""

from __future__ import annotations

from cowcloop.registry.entry import Entry, NewEntry, at, create
from cowcloop.registry.errors import RegistryError
from cowcloop.registry.place import directory
from cowcloop.registry.record import Record
from cowcloop.registry.search import entries, find, find_whole, session_in
from cowcloop.registry.sockets import SOCKET_PATH_LIMIT, remove_dead_socket

__all__ = [
    "SOCKET_PATH_LIMIT",
    "Entry",
    "NewEntry",
    "Record",
    "RegistryError",
    "at",
    "create",
    "directory",
    "entries",
    "find",
    "find_whole",
    "remove_dead_socket",
    "session_in",
]
