"""The block device of a served device, when that is to end."""

from __future__ import annotations

import contextlib
import os

from cowcloop import mounts, registry
from cowcloop.server import nbd_client
from cowcloop.server.address.ublk import remove_left_behind
from cowcloop.server.daemon import daemon_path
from cowcloop.server.errors import ServerError


def let_go(record: registry.Record) -> None:
    """Write back what the kernel holds for the device, and take it from its server.

    Refused while it is mounted. A device of ublk's ends with its server.
    """
    device = record.device
    if device is None:
        return
    _write_back(device)
    if not is_ublk(record):
        nbd_client.disconnect(device)


def is_ublk(record: registry.Record) -> bool:
    """Whether the block device is one of ublk's, which outlives a server that is killed."""
    return record.device is not None and record.program == "cowcloopd"


def clean_up(record: registry.Record) -> None:
    """Remove the block device of a server that has ended by itself, or disconnect it.

    What uses it sees errors then: before, it waits for another server. The kernel's NBD does so
    with what it had sent already.
    """
    if record.device is None:
        return
    if not is_ublk(record):
        if nbd_client.connected(record.device):
            nbd_client.disconnect(record.device)
    elif os.path.exists(record.device):
        remove_left_behind(daemon_path(), record.device)


def _write_back(device: str) -> None:
    mount = mounts.of_device(device)
    if mount is not None:
        raise ServerError(f"{device} is mounted on {mount.point}: unmount it first")
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            raise ServerError(f"{device}: {error.strerror}") from None
        finally:
            os.close(handle)
