"""The function :func:`cowcloop.open`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .disk import Disk
from .files import refuse_mode
from .options import OpenKeywords, keywords_of

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath
    from typing_extensions import Unpack

__all__ = ["open"]


@keywords_of(OpenKeywords, create=True)
def open(  # noqa: A001 - meant to be written cowcloop.open
    image: StrOrBytesPath, *cows: StrOrBytesPath, **given: Unpack[OpenKeywords]
) -> Disk:
    """Open an image, with cowfiles on it, as a seekable binary file.

    ``image`` is a cloop or uzip image, or any raw file or block device, or a file inside an ISO
    9660 image, ``cd.iso:/KNOPPIX/KNOPPIX``; it is never written to. ``cows`` are
    stacked, the lowest first; the last one takes the writes, and is created when it is missing
    unless ``create`` is false. ``":memory:"`` is a throw-away overlay of at most ``memory_limit``
    bytes. Without a cowfile, or with ``read_only``, the file is read-only.

    ``verity`` is the digest that the image must have, as ``cowcloop.digest()`` and ``fsverity
    digest`` tell it, and ``verity_tree`` the file of its digest tree, by default the image's name
    and ``.verity`` if there is such a file: what is read of the image is verified with it.

    ``repair`` repairs a cowfile that the original kernel driver left dirty. ``cache`` is how
    many bytes of decompressed blocks are kept, ``threads`` how many inflate ahead (0: one per
    core). ``strict`` checks a whole block before any byte of it is returned. ``size`` makes
    a new cowfile's device larger than its base. Sizes are bytes, or text such as ``"64M"``.
    """
    refuse_mode(cows)
    return Disk(image, cows, **given)
