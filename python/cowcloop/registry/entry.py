"""One entry of the registry: a directory with a lock, a record and sockets in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from cowcloop import mounts
from cowcloop.errors import CowcloopError
from cowcloop.registry import record as records
from cowcloop.registry.errors import blamed_on
from cowcloop.registry.place import NAME_LENGTH, directory, locked
from cowcloop.registry.record import Record
from cowcloop.registry.sockets import remove_dead_socket

LOCK = "lock"

_NAME_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True)
class Entry:
    """One entry's directory, and the record once its device is ready."""

    path: Path
    record: Record | None = None
    #: The user of the systemd unit that serves it; None for a device of this user's own.
    owner: int | None = None

    @property
    def id(self) -> str:
        """The entry's name, good as a short name of the device."""
        return self.path.name

    @property
    def control(self) -> Path:
        """The control channel's socket."""
        return self.path / "control.sock"

    def write(self, record: Record) -> Entry:
        """Write the record, whole or not at all."""
        temporary = self.path / f".{records.FILE}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with blamed_on(self.path.parent):
            with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
                json.dump(asdict(record), file)
            os.rename(temporary, self.path / records.FILE)
        return Entry(self.path, record)

    def remove(self) -> None:
        """Remove the entry and the socket that its server left behind.

        A unit removes its own.
        """
        if self.owner is not None:
            return
        with locked(self.path.parent):
            remove(self.path)

    def wait_until_gone(self) -> None:
        """Wait until the device's process has ended, however long it writes to disk."""
        try:
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    def alive(self) -> bool:
        """Whether the device is being started or served."""
        lock = try_lock(self.path)
        if lock is None:
            return (self.path / LOCK).exists()
        os.close(lock)
        return False


@dataclass(frozen=True)
class NewEntry(Entry):
    """An entry being made; `lock` is the descriptor that the server has to inherit."""

    lock: int = -1

    def release(self) -> None:
        """Leave the lock to the server."""
        os.close(self.lock)


def create() -> NewEntry:
    """A new entry, its lock held by the caller."""
    root = directory()
    with locked(root), blamed_on(root):
        while True:
            path = root / "".join(secrets.choice(_NAME_LETTERS) for _ in range(NAME_LENGTH))
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
                break
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            lock = os.open(path / LOCK, flags, 0o600)
        except OSError:
            os.rmdir(path)
            raise
        fcntl.flock(lock, fcntl.LOCK_EX)
    return NewEntry(path, lock=lock)


def at(path: Path, owner: int | None = None) -> Entry:
    """The entry with this directory, whatever became of its process."""
    return Entry(path, records.read(path), owner)


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of the entry in a directory, or None when it is held."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def remove(path: Path) -> None:
    """Remove a stale entry, and its socket where that lies elsewhere and is dead."""
    record = records.read(path)
    if record is not None and record.socket:
        remove_dead_socket(record.socket)
    if mounts.inside(path):
        with contextlib.suppress(CowcloopError):
            mounts.take_away(path)
    shutil.rmtree(path, ignore_errors=True)
