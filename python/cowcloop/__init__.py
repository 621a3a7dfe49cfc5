"""Compressed, read-only cloop images with copy-on-write overlays, without a kernel module.

cowcloop.open(image, *cowfiles) gives the device that they make, as a seekable binary file:

>>> import cowcloop
>>> with cowcloop.open("chicken.img", "chicken.cow") as disk:  # doctest: +SKIP
...     disk.seek(1024)
...     superblock = disk.read(1024)

cowcloop.serve(image, *cowfiles) serves it to NBD clients:

>>> with cowcloop.serve("chicken.img", "chicken.cow") as server:  # doctest: +SKIP
...     print(server.uri)

CloopImage and cow_info() tell what a file holds. Every error is a CowcloopError, and an OSError
or ValueError where that is what it is.
"""

from __future__ import annotations

# As typing has it, which takes longer to load than all of this: a Ctrl-C before the program
# answers to it shows a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from _typeshed import StrOrBytesPath

    from ._core import __version__
    from .disk import Disk, Extent
    from .errors import (
        AccessError,
        BusyError,
        CancelledError,
        CowcloopError,
        DamagedError,
        DirtyError,
        ExistsError,
        ImageFormatError,
        InvalidInputError,
        MismatchError,
        NoSpaceError,
        NotFoundError,
        PoisonedError,
        ReadOnlyError,
        StorageError,
        UnsupportedError,
    )
    from .image import BadBlock, CloopImage, CowfileInfo, ImageInfo, VerifyReport, cow_info
    from .server import Server, ServerError, Tls, serve
    from .status import CowfileStatus, DiskStatus

__all__ = [
    "AccessError",
    "BadBlock",
    "BusyError",
    "CancelledError",
    "CloopImage",
    "CowcloopError",
    "CowfileInfo",
    "CowfileStatus",
    "DamagedError",
    "DirtyError",
    "Disk",
    "DiskStatus",
    "ExistsError",
    "Extent",
    "ImageFormatError",
    "ImageInfo",
    "InvalidInputError",
    "MismatchError",
    "NoSpaceError",
    "NotFoundError",
    "PoisonedError",
    "ReadOnlyError",
    "Server",
    "ServerError",
    "StorageError",
    "Tls",
    "UnsupportedError",
    "VerifyReport",
    "__version__",
    "cow_info",
    "open",
    "serve",
]


def open(  # noqa: A001 - meant to be written cowcloop.open
    image: StrOrBytesPath,
    *cows: StrOrBytesPath,
    read_only: bool = False,
    create: bool = True,
    repair: bool = False,
    cache: int | str | None = None,
    threads: int = 0,
    memory_limit: int | str | None = None,
    strict: bool = False,
    size: int | str | None = None,
) -> Disk:
    """Open an image, with cowfiles on it, as a seekable binary file.

    ``image`` is a cloop or uzip image, or any raw file or block device, or a file inside an ISO
    9660 image, ``cd.iso:/KNOPPIX/KNOPPIX``; it is never written to. ``cows`` are
    stacked, the lowest first; the last one takes the writes, and is created when it is missing
    unless ``create`` is false. ``":memory:"`` is a throw-away overlay of at most ``memory_limit``
    bytes. Without a cowfile, or with ``read_only``, the file is read-only.

    ``repair`` repairs a cowfile that the original kernel driver left dirty. ``cache`` is how
    many bytes of decompressed blocks are kept, ``threads`` how many inflate ahead (0: one a
    core). ``strict`` checks a whole block before any byte of it is given out. ``size`` makes
    a new cowfile's device larger than its base. Sizes are bytes, or text such as ``"64M"``.
    """
    from .disk import Disk
    from .files import refuse_mode

    refuse_mode(cows)
    return Disk(
        image,
        cows,
        read_only=read_only,
        create=create,
        repair=repair,
        cache=cache,
        threads=threads,
        memory_limit=memory_limit,
        strict=strict,
        size=size,
    )


# Loaded when a name of theirs is first asked for, so that a command starts quickly.
_MODULES = ("errors", "disk", "image", "status", "server")

if not TYPE_CHECKING:  # a checker that saw it would take any name for an attribute

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in __all__:
            for module in ("_core",) if name == "__version__" else _MODULES:
                found = import_module(f".{module}", __name__)
                if name in found.__all__:
                    globals()[name] = getattr(found, name)
                    return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
