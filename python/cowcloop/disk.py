"""The device as a file object."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Sequence
from operator import index
from typing import TYPE_CHECKING, NoReturn, SupportsIndex

from . import _core
from .errors import ReadOnlyError, UnsupportedError
from .files import check_cows
from .options import (
    DeviceKeywords,
    ImageKeywords,
    OpenKeywords,
    check_keywords,
    keywords_of,
    normal,
    table,
)
from .source import locate, shown
from .status import DiskStatus, Extent

if TYPE_CHECKING:
    from typing import BinaryIO

    from _typeshed import ReadableBuffer, StrOrBytesPath, WriteableBuffer
    from typing_extensions import Unpack

    # A type checker sees a disk as it sees io.FileIO: as a BinaryIO.
    class _File(io.RawIOBase, BinaryIO):
        pass

else:
    _File = io.RawIOBase

__all__ = ["Disk"]


class Disk(_File):
    """An image with its cowfiles as a seekable binary file of fixed size.

    Several threads may use one ``Disk``. ``pread``, ``pread_into``, ``pwrite``,
    ``write_zeroes``, ``trim``, ``flush`` and ``extents`` use no position, so they run side
    by side. ``read``, ``readinto``, ``write`` and ``seek`` share one position and take
    turns; a ``seek`` and the ``read`` after it are two calls, so threads that read from
    different places use ``pread``. No thread may change a buffer while another reads into
    it or writes from it.

    Writes are durable once ``flush`` returns. Offsets and lengths are in bytes, and need
    no alignment.
    """

    _device: _core.Device | None = None
    _forked = False

    @keywords_of(OpenKeywords, create=True)
    def __init__(
        self,
        image: StrOrBytesPath,
        cows: Sequence[StrOrBytesPath] = (),
        **given: Unpack[OpenKeywords],
    ) -> None:
        """Open ``image`` with ``cows`` on it, the lowest first; see :func:`cowcloop.open`."""
        super().__init__()
        check_keywords("open", OpenKeywords, given)
        if isinstance(cows, (str, bytes)):
            raise TypeError(f"cows must be a sequence of paths, not {type(cows).__name__}")
        self._cows = [os.fsdecode(cow) for cow in cows]
        self._name = os.fsdecode(image)
        check_cows(self._name, self._cows)
        self._position = 0
        self._lock = threading.Lock()
        options = normal(DeviceKeywords, given)
        of_image = {name: options.pop(name) for name in table(ImageKeywords) if name in options}
        source = locate(self._name, **of_image)
        create = given.get("create", True)
        self._device = _core.Device(source, self._cows, create=create, **options)
        _disks.add(self)

    # What it is

    @property
    def name(self) -> str:
        """The image's name, as it was given."""
        return self._name

    @property
    def mode(self) -> str:
        """``rb+``, or ``rb`` when it is read-only."""
        return "rb+" if self.writable() else "rb"

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._open().size

    def readable(self) -> bool:
        """Always true while it is open."""
        self._open()
        return True

    def writable(self) -> bool:
        """Whether it has a cowfile to write to."""
        return not self._open().read_only

    def seekable(self) -> bool:
        """Always true while it is open."""
        self._open()
        return True

    def __repr__(self) -> str:
        device = self._device
        if device is None or self.closed:
            return f"<cowcloop.Disk {shown(self._name)!r} (closed)>"
        return f"<cowcloop.Disk {device.description}>"

    # The file: one position

    def seek(self, offset: SupportsIndex, whence: int = os.SEEK_SET, /) -> int:
        """Move the position; beyond the end is allowed. Returns the new position."""
        with self._lock:
            device = self._open()
            offset = index(offset)
            if whence == os.SEEK_SET:
                position = offset
            elif whence == os.SEEK_CUR:
                position = self._position + offset
            elif whence == os.SEEK_END:
                position = device.size + offset
            else:
                raise ValueError(f"whence {whence} is not one of SEEK_SET, SEEK_CUR, SEEK_END")
            if position < 0:
                raise ValueError(f"negative seek position {position}")
            if position > sys.maxsize:
                raise OverflowError(f"seek position {position} is too large")
            self._position = position
            return position

    def tell(self) -> int:
        """The position in bytes."""
        self._open()
        return self._position

    def read(self, size: SupportsIndex | None = -1, /) -> bytes:
        """Up to ``size`` bytes from the position on; all of the rest when negative."""
        with self._lock:
            device = self._open()
            wanted = -1 if size is None else index(size)
            if wanted < 0:
                wanted = max(0, device.size - self._position)
            data = device.pread(wanted, self._position)
            self._position += len(data)
            return data

    def readall(self) -> bytes:
        """Everything from the position to the end."""
        return self.read()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer from the position on; returns how many bytes there were."""
        with self._lock:
            device = self._open()
            try:
                count = device.pread_into(buffer, self._position)
            except BufferError as error:
                # As Python's own files do.
                raise TypeError(f"readinto needs a writable, contiguous buffer: {error}") from None
            self._position += count
            return count

    def write(self, data: ReadableBuffer, /) -> int:
        """Write at the position; returns how many bytes fitted before the end."""
        with self._lock:
            count = self._writable("write").pwrite(data, self._position)
            self._position += count
            return count

    def truncate(self, size: int | None = None, /) -> NoReturn:
        """Refused: a device keeps its size."""
        self._open()
        message = f"{self._name}: truncate: a device has a fixed size"
        raise UnsupportedError(errno.EINVAL, message, self._name)

    # The device: no position

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes from ``offset`` on, fewer only at the end."""
        return self._open().pread(_natural("length", length), _natural("offset", offset))

    def pread_into(self, buffer: WriteableBuffer, offset: int) -> int:
        """Fill any writable, contiguous buffer without a copy; returns how many bytes."""
        return self._open().pread_into(buffer, _natural("offset", offset))

    def pwrite(self, data: ReadableBuffer, offset: int) -> int:
        """Write any contiguous buffer without a copy; returns how many bytes fitted."""
        return self._writable("pwrite").pwrite(data, _natural("offset", offset))

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make a range read as zeros, with holes where the cowfile can have them."""
        device = self._writable("write_zeroes")
        device.write_zeroes(_natural("offset", offset), _natural("length", length))

    def trim(self, offset: int, length: int) -> None:
        """Discard a range: it reads as zeros afterwards, and its space is given back."""
        self._writable("trim").trim(_natural("offset", offset), _natural("length", length))

    def extents(self, offset: int = 0, length: int | None = None) -> list[Extent]:
        """The parts of a range, in order and without gaps; nothing is read."""
        device = self._open()
        offset = _natural("offset", offset)
        rest = max(0, device.size - offset)
        length = rest if length is None else min(rest, _natural("length", length))
        if length == 0:
            return []
        return [Extent(*extent) for extent in device.extents(offset, length)]

    def status(self) -> DiskStatus:
        """State and counters: reads of the base, the cache, the cowfiles."""
        status = self._open().status()
        # The engine's names are for display: they lose bytes that are not UTF-8.
        status["image"] = shown(self._name)
        for cowfile, name in zip(status["cowfiles"], self._cows):
            cowfile["path"] = name
        return DiskStatus.from_dict(status)

    # Its life

    def flush(self) -> None:
        """Return once everything written so far is durable."""
        super().flush()
        device = self._device
        if device is not None:
            device.flush()
        elif self._forked and not self.closed:
            self._open()

    def close(self) -> None:
        """Flush, and close the cowfile cleanly. May be repeated."""
        if self.closed:
            return
        # After a fork there is nothing of ours to flush.
        self._forked = False
        try:
            super().close()
        finally:
            # Dropped, so that the files are closed and another program can open the cowfile.
            device, self._device = self._device, None
            if device is not None:
                device.close()

    def __del__(self) -> None:
        if self._device is not None and not self.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        super().__del__()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError(
            "a Disk holds open files and cannot be pickled or copied: open it again instead"
        )

    def _abandon(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            self._forked = True
            device.abandon()

    def _open(self) -> _core.Device:
        # Read once: another thread may close it meanwhile.
        device = self._device
        if self._forked:
            raise ValueError(f"{self._name} was opened before a fork: open it again in the child")
        if device is None or self.closed:
            raise ValueError("I/O operation on closed file")
        return device

    def _writable(self, what: str) -> _core.Device:
        device = self._open()
        if device.read_only:
            message = f"{what}: {self._name} is open read-only"
            raise ReadOnlyError(errno.EROFS, message, self._name)
        return device


# The disks of this process. They are useless in a fork: their threads are not in it, and its
# writes would overwrite those of the parent.
_disks: weakref.WeakSet[Disk] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for disk in list(_disks):
        disk._abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _natural(what: str, value: int) -> int:
    if value < 0:
        raise ValueError(f"{what} {value} is negative")
    return value
