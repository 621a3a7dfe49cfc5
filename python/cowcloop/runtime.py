"""The registry of served devices: one private directory a user, one entry in it a device.

An entry is a directory with ``lock``, ``device.json``, ``control.sock`` and, unless the user
chose another address, ``nbd.sock``. The lock file's flock is held by whoever starts the device and
inherited by nbdkit, so it is held exactly as long as the device is starting or served: no process
number has to be trusted. Whoever gets the lock of an entry knows that it is stale. Making and
removing entries happens under the lock of the whole directory, which is only held for a moment.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from cowcloop import mounts
from cowcloop.errors import CowcloopError
from cowcloop.nbd_uri import export_name, place_of

# Letters of a record; sessions are not in it.
_RECORD_LIMIT = 1 << 20

#: sun_path holds 108 bytes with the final NUL.
SOCKET_PATH_LIMIT = 107

_NAME_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_NAME_LENGTH = 6
# An entry's name, and the longest of the sockets in it.
_LONGEST_INSIDE = len("/") + _NAME_LENGTH + len("/control.sock")


class RegistryError(CowcloopError):
    """The directory of served devices cannot be used, or has no such device."""


@dataclass
class Record:
    """What ``device.json`` says about one served device.

    `mount` is a directory, `via` how it came to be mounted there, `mounted` the number of the
    file system's device once it is, `mounts_below` how many mounts there were before, and
    `never_written` whether the file system is mounted read-only.
    """

    pid: int
    uri: str
    socket: str | None
    image: str
    cowfiles: list[str]
    device: str | None = None
    mount: str | None = None
    via: str | None = None
    mounted: str | None = None
    mounts_below: int = 0
    never_written: bool = False
    read_only: bool = False
    sessions: str | None = None
    all_interfaces: bool = False
    started: float = field(default_factory=time.time)
    version: int = 1

    def is_mounted(self) -> bool:
        """Whether the file system is still mounted, perhaps below another one."""
        return self._own_mounts() != []

    def is_hidden(self) -> bool:
        """Whether another file system has been mounted over it."""
        own = self._own_mounts()
        return self.mounted is not None and own != [] and own[-1] != self.mounted

    def _own_mounts(self) -> list[str]:
        """The devices mounted at its place since, ours among them."""
        here = [mount.device for mount in mounts.mounts() if mount.point == self.mount]
        since = here[self.mounts_below :]
        # While it is being mounted, its number is not known yet.
        return since if self.mounted in (None, *since) else []


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
        temporary = self.path / f".device.json.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _blamed_on(self.path.parent):
            with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
                json.dump(asdict(record), file)
            os.rename(temporary, self.path / "device.json")
        return Entry(self.path, record)

    def remove(self) -> None:
        """Remove the entry and the socket that its server left behind.

        A unit removes its own.
        """
        if self.owner is not None:
            return
        with _directory_lock(self.path.parent):
            _remove(self.path)

    def wait_until_gone(self) -> None:
        """Wait until the device's process has ended, however long it writes to disk."""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    def alive(self) -> bool:
        """Whether the device is being started or served."""
        lock = _try_lock(self.path)
        if lock is None:
            return (self.path / "lock").exists()
        os.close(lock)
        return False


@dataclass(frozen=True)
class NewEntry(Entry):
    """An entry being made; `lock` is the descriptor that nbdkit has to inherit."""

    lock: int = -1

    def release(self) -> None:
        """Leave the lock to the server."""
        os.close(self.lock)


def directory() -> Path:
    """The user's registry directory, made when missing and checked to be private."""
    path = _place()
    longest = len(os.fsencode(path)) + _LONGEST_INSIDE
    if longest > SOCKET_PATH_LIMIT:
        raise RegistryError(
            f"{path}: the sockets there would have names of {longest} bytes, and may have "
            f"{SOCKET_PATH_LIMIT}: set XDG_RUNTIME_DIR to a directory with a shorter name"
        )
    with contextlib.suppress(FileExistsError), _blamed_on(path):
        os.mkdir(path, 0o700)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise RegistryError(f"{path} is not a directory: remove it and try again") from None
    try:
        status = os.fstat(handle)
        if status.st_uid != os.geteuid():
            raise RegistryError(
                f"{path} belongs to another user (uid {status.st_uid}): have it removed, "
                "or set XDG_RUNTIME_DIR to a directory of your own"
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            with _blamed_on(path):
                os.fchmod(handle, 0o700)
    finally:
        os.close(handle)
    return path


def create() -> NewEntry:
    """A new entry, its lock held by the caller."""
    root = directory()
    with _directory_lock(root), _blamed_on(root):
        while True:
            path = root / "".join(secrets.choice(_NAME_LETTERS) for _ in range(_NAME_LENGTH))
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
                break
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            lock = os.open(path / "lock", flags, 0o600)
        except OSError:
            os.rmdir(path)
            raise
        fcntl.flock(lock, fcntl.LOCK_EX)
    return NewEntry(path, lock=lock)


def entries() -> list[Entry]:
    """The served devices, oldest first; entries whose process is gone are removed.

    But one whose mount is still there stays, so that it can be unmounted.
    """
    root = directory()
    found = []
    with _directory_lock(root):
        for path in sorted(item for item in root.iterdir() if item.is_dir()):
            lock = _try_lock(path)
            record = _read(path)
            if lock is not None:
                if record is not None and _left_mounted(path, record):
                    found.append(Entry(path, record))
                else:
                    _remove(path)
                os.close(lock)
                continue
            # Without a record it is still being started.
            if record is not None:
                found.append(Entry(path, record))
            elif not (path / "lock").exists():
                _remove(path)
    from cowcloop import unit_devices

    found += unit_devices.entries()
    return sorted(found, key=lambda entry: entry.record.started if entry.record else 0.0)


def at(path: Path, owner: int | None = None) -> Entry:
    """The entry with this directory, whatever became of its process."""
    return Entry(path, _read(path), owner)


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


def _place() -> Path:
    user = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # Root with the environment of a user (sudo -E) must not leave its directory in that user's.
    # Root's own from a login session goes with the session, and other programs of root's do not
    # look there.
    if runtime and os.path.isabs(runtime) and (user, runtime.rstrip("/")) != (0, "/run/user/0"):
        with contextlib.suppress(OSError):
            if os.stat(runtime).st_uid == user:
                return Path(runtime) / "cowcloop"
    if user == 0 and os.path.isdir("/run"):
        return Path("/run/cowcloop")
    return Path(f"/tmp/cowcloop-{user}")


@contextlib.contextmanager
def _blamed_on(root: Path) -> Iterator[None]:
    """What fails in the block is for want of room in the registry's directory, or of the right."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        room = "make room, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise RegistryError(
            f"{root}: nothing can be noted there: {error.strerror}: {room}set XDG_RUNTIME_DIR "
            "to another directory of your own"
        ) from None


@contextlib.contextmanager
def _directory_lock(root: Path) -> Iterator[None]:
    # The directory itself is locked: there is no lock file to leave behind.
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the entry's lock, or None when somebody else does."""
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _read(path: Path) -> Record | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path / "device.json", flags), encoding="utf-8") as file:
            values = json.loads(file.read(_RECORD_LIMIT))
        names = {item.name for item in fields(Record)}
        return Record(**{name: value for name, value in values.items() if name in names})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _left_mounted(path: Path, record: Record) -> bool:
    if record.mount is None:
        return False
    return record.is_mounted() or mounts.inside(path) or bool(mounts.loop_devices(path))


def _remove(path: Path) -> None:
    """Remove a stale entry, and its socket where that lies elsewhere and nobody listens."""
    record = _read(path)
    if record is not None and record.socket:
        remove_dead_socket(record.socket)
    shutil.rmtree(path, ignore_errors=True)


def remove_dead_socket(path: str) -> bool:
    """Remove a Unix socket on which nobody listens; whether it was removed."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect(path)
    except ConnectionRefusedError:
        with contextlib.suppress(OSError):
            os.unlink(path)
            return True
    except OSError:
        pass
    return False
