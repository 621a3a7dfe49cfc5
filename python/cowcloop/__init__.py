"""Compressed, read-only cloop images with copy-on-write overlays, without a kernel module.

cowcloop.open(image, *cowfiles) gives the device that they make, as a seekable binary file:

>>> import cowcloop
>>> with cowcloop.open("chicken.img", "chicken.cow") as disk:  # doctest: +SKIP
...     disk.seek(1024)
...     superblock = disk.read(1024)

cowcloop.serve(image, *cowfiles) serves it to NBD clients:

>>> with cowcloop.serve("chicken.img", "chicken.cow") as server:  # doctest: +SKIP
...     print(server.uri)

CloopImage and cow_info() tell what a file holds. Every error is a CowcloopError, and also an
OSError or ValueError where one of these fits.
"""

from __future__ import annotations

# Not imported from typing, which takes longer to load than all of this: until the program has
# set its handlers, a Ctrl-C shows a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._core import __version__
    from .creating import CreateSummary, create
    from .disk import Disk
    from .errors import (
        AccessError,
        BusyError,
        CancelledError,
        ClusterError,
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
    from .image import (
        BadBlock,
        CloopImage,
        CowfileInfo,
        ImageInfo,
        VerifyReport,
        cow_info,
        digest,
    )
    from .opening import open  # noqa: A004 - meant to be written cowcloop.open
    from .server import Server, ServerError, Tls, serve
    from .status import CowfileStatus, DiskStatus, Extent

__all__ = [
    "AccessError",
    "BadBlock",
    "BusyError",
    "CancelledError",
    "CloopImage",
    "ClusterError",
    "CowcloopError",
    "CowfileInfo",
    "CowfileStatus",
    "CreateSummary",
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
    "create",
    "digest",
    "open",
    "serve",
]


# Each is loaded when one of its names is first used, so that a command starts quickly.
_MODULES = ("errors", "disk", "opening", "image", "creating", "status", "server")

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
