"""The file or block device that an ISO 9660 image is, read within limits."""

from __future__ import annotations

import errno
import os
import stat

from cowcloop.errors import ImageFormatError, InvalidInputError, from_engine

SECTOR = 2048

# What one look into an image may read of it, so that a hostile one costs little: directories with
# a few hundred thousand files take less.
_MOST_READ = 64 << 20
# What a read counts at least: many small ones take time as well.
_LEAST_READ = 128


class Medium:
    """Open for reading; `path` is what messages call it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._left = _MOST_READ
        self._file = -1
        try:
            kind = os.stat(path).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
                raise InvalidInputError(f"{path}: neither a file nor a block device")
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.lseek(self._file, 0, os.SEEK_END)
        except OSError as error:
            self.close()
            raise self._failed(error) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; may be repeated."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; ImageFormatError when the image ends before."""
        self._left -= max(length, _LEAST_READ)
        if self._left < 0:
            limit = f"more than {_MOST_READ >> 20} MiB of directories, which no sound disc has"
            raise ImageFormatError(f"{self.path}: {limit}: look for another copy")
        if offset + length > self.size:
            raise ImageFormatError(f"{self.path}: cut short at {self.size} bytes: copy it again")
        try:
            data = os.pread(self._file, length, offset)
        except OSError as error:
            raise self._failed(error) from None
        if len(data) < length:
            raise ImageFormatError(f"{self.path}: it has become shorter: copy it again")
        return data

    def _failed(self, error: OSError) -> Exception:
        number = error.errno or errno.EIO
        return from_engine("io", number, f"{self.path}: {os.strerror(number)}")
