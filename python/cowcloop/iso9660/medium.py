"""The file or block device that an ISO 9660 image is, as pycdlib may read it."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from cowcloop import _core
from cowcloop.errors import CowcloopError, ImageFormatError, InvalidInputError, from_engine
from cowcloop.iso9660 import susp
from cowcloop.part import Part, Place, Remote

REMEDY = "mount it, or copy the image out of it"

_SECTOR = 2048
_SYSTEM_AREA = 16 * _SECTOR

# What may be read of an image, so that a hostile one costs little: in all, and at least by each
# read, as many small ones take time as well. pycdlib takes some thirty times as much memory.
_MOST_READ = 16 << 20
_LEAST_READ = 128
# Processor time for all of it. Where a directory is not in order, pycdlib takes its square.
_MOST_SECONDS = 60


#: Gives up to so many bytes from an offset on.
Reader = Callable[[int, int], bytes]

# Where UDF begins among the descriptors of a disc that has both.
_UDF = b"BEA01"


class Medium:
    """The image, as the file that pycdlib reads.

    pycdlib refuses all of a disc for one thing that it does not take; so what is not needed to read
    the directories of ISO 9660 is kept from it. With `udf` it is shown the disc as that is.
    """

    def __init__(self, path: Place, size: int, read: Reader, *, udf: bool = False) -> None:
        self.path = path
        #: whether UDF was found, and hidden
        self.has_udf = False
        #: names of entries in System Use areas that mean nothing to us
        self.unknown: set[bytes] = set()
        self._shows_udf = udf
        self.size = size
        self._read = read
        self._at = 0
        self._left = _MOST_READ
        self._until = time.thread_time() + _MOST_SECONDS

    def is_iso9660(self) -> bool:
        """Whether the first descriptor is there, and is one."""
        whole = self.size >= _SYSTEM_AREA + _SECTOR
        return whole and self._pread(5, _SYSTEM_AREA + 1) == b"CD001"

    def read(self, length: int) -> bytes:
        """At most so many bytes, from where it stands."""
        self._left -= max(length, _LEAST_READ)
        if self._left < 0:
            raise self._too_much(f"it has more than {_MOST_READ >> 20} MiB of directories")
        # What is there to start a computer is neither needed nor judged.
        data = bytes(length) if self._at < _SYSTEM_AREA else self._pread(length, self._at)
        if data[1:6] == _UDF and not self._shows_udf:
            self.has_udf = True
            data = bytes(length)
        self._at += len(data)
        # A continuation of such an area lies in one sector.
        if length <= _SECTOR:
            data = self._tidy(data, susp.in_area)
        return _Watched(data, self)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go there. The end seems to be far away: pycdlib shortens the files beyond it.

        But UDF has something at the end, and its files are not shortened.
        """
        end = self.size if self._shows_udf else 1 << 62
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: end}[whence]
        return self._at

    def tell(self) -> int:
        """Where it stands."""
        return self._at

    def check_time(self) -> None:
        """Raise ImageFormatError when it takes too long."""
        if time.thread_time() > self._until:
            raise self._too_much(f"its directories take more than {_MOST_SECONDS} seconds to read")

    def part(self, data: bytes) -> bytes:
        """A part of what was read, which may be a directory record, in time."""
        self.check_time()
        return self._tidy(data, susp.in_record)

    def _tidy(self, data: bytes, how: Callable[[bytes], tuple[bytes, set[bytes]]]) -> bytes:
        tidy, unknown = how(data)
        self.unknown |= unknown
        return tidy

    def _too_much(self, what: str) -> ImageFormatError:
        return ImageFormatError(f"{self.path}: {what}: {REMEDY}")

    def _pread(self, length: int, offset: int) -> bytes:
        return self._read(length, offset) if offset < self.size else b""


class _Watched(bytes):
    """Data that pycdlib takes a directory's records from, each in its turn and in time."""

    _medium: Medium

    def __new__(cls, data: bytes, medium: Medium) -> _Watched:
        made = super().__new__(cls, data)
        made._medium = medium
        return made

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return self._medium.part(found) if isinstance(found, bytes) else found


@contextmanager
def open_medium(path: Place, *, udf: bool = False) -> Iterator[Medium]:
    """Open it for reading; what the system refuses then and later is told as our error."""
    if isinstance(path, Part):
        far = _core.RemoteFile(path.path, path.remote or Remote())
        yield Medium(path, far.size, far.pread, udf=udf)
        return
    file = -1
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise InvalidInputError(f"{path}: neither a file nor a block device")
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.lseek(file, 0, os.SEEK_END)
        yield Medium(path, size, partial(os.pread, file), udf=udf)
    except CowcloopError:
        raise
    except OSError as error:
        number = error.errno or errno.EIO
        raise from_engine("io", number, f"{path}: {os.strerror(number)}") from None
    finally:
        if file >= 0:
            os.close(file)


def is_iso9660(path: Place) -> bool:
    """Whether a file or block device is an ISO 9660 image, by its first descriptor."""
    with open_medium(path) as medium:
        return medium.is_iso9660()


def shown(name: str) -> str:
    """A name from an image, fit for a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
