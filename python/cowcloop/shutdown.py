"""Run by systemd for each device in the background when the system goes down (server/units.py).

Unmounts the device's file systems and ends it. A device that cannot be ended is brought to disk and
runs until systemd's last kill, which comes after all unmounts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from cowcloop import CowcloopError, mount, mounts, registry, server
from cowcloop.mount.programs import run
from cowcloop.programs import find_program
from cowcloop.server import units

# Seconds in which processes that use a file system may still end, and the pause between looks.
_PATIENCE = 20.0
_PAUSE = 0.5

# The state in /proc/net/unix of a socket that has a peer.
_CONNECTED = "03"


def main(path: str) -> None:
    """End the device of an entry, if the system is going down."""
    entry = registry.at(Path(path))
    if entry.record is None or not entry.alive() or not units.is_stopping():
        return
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            _end(entry, entry.record)
            return
        except CowcloopError as error:
            if time.monotonic() > end:
                print(f"cowcloop: {error}", file=sys.stderr)
                break
        time.sleep(_PAUSE)
    mount.sync(entry)
    server.sync(entry)


def _end(entry: registry.Entry, record: registry.Record) -> None:
    if record.mount is not None:
        mount.release(entry, discard=True)
        return
    if record.device is not None:
        for place in mounts.on_device(record.device):
            run(find_program("umount", "mount"), "--", place)
    elif record.socket is None or _has_clients(record.socket):
        # The clients are not known: perhaps file systems that are still mounted.
        server.sync(entry)
        return
    server.detach(entry, discard=True)


def _has_clients(socket: str) -> bool:
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            words = line.rstrip("\n").split(maxsplit=7)
            if words[7:] == [socket] and words[5] == _CONNECTED:
                return True
    return False


if __name__ == "__main__":
    main(sys.argv[1])
