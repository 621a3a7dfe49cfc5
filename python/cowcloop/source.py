"""Where an image lies: in a file, in an ISO 9660 image, at a URL; and how it is verified."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Union

from .errors import InvalidInputError, NotFoundError, from_engine
from .options import ImageKeywords, RemoteKeywords, normal, table
from .part import Part, Remote, is_url

if TYPE_CHECKING:
    from _typeshed import StrPath
    from typing_extensions import Unpack

__all__ = ["Part", "Source", "file_of", "has_secrets", "locate", "shown"]


#: What the engine opens.
Source = Union["StrPath", Part]


def locate(image: StrPath, **given: Unpack[ImageKeywords]) -> Source:
    """Find an image: a file of this name, or the file in an ISO 9660 image that ISO:/PATH names.

    Either may be a URL. Raises NotFoundError and other errors that say what there is instead.
    """
    options = normal(ImageKeywords, given)
    remote = {name: options.pop(name) for name in table(RemoteKeywords) if name in options}
    text = os.fsdecode(image)
    source = _far(text, Remote(**remote)) if is_url(text) else _find(image)
    if not options:
        return source
    if not isinstance(source, Part):
        source = Part(os.fsdecode(source), (), os.fsdecode(source))
    return replace(source, **options)


def _find(image: StrPath) -> Source:
    text = os.fsdecode(image)
    if _is_stream(text):
        message = "an image is read in any order, which a pipe does not allow"
        raise InvalidInputError(f"{text}: {message}: save it in a file first")
    # Most names are not of this form, and are done with here.
    if ":/" not in text or os.path.lexists(text):
        return image
    at = text.find(":/")
    while at >= 0:
        if _is_file(text[:at]):
            return _inside(text[:at], text[at + 1 :], text)
        at = text.find(":/", at + 1)
    iso = text[: text.find(":/")]
    if os.path.isdir(iso):
        message = f"{text}: no such file; and {iso} is a directory, not an ISO image"
    else:
        message = f"{text}: no such file, nor is there an ISO image {iso or 'before the colon'}"
    raise NotFoundError(errno.ENOENT, message, text)


def file_of(source: Source) -> str:
    """The file that an image lies in, or the URL."""
    return source.path if isinstance(source, Part) else os.fsdecode(source)


def shown(image: str) -> str:
    """An image's name without the secrets that a URL may hold."""
    if not is_url(image):
        return image
    from . import _core

    url, colon, inside = _split(image)
    return _core.redacted(url) + colon + inside


def has_secrets(place: str) -> bool:
    """Whether a path or URL holds what others must not see."""
    from . import _core

    return is_url(place) and _core.redacted(place) != place


def _split(text: str) -> tuple[str, str, str]:
    """A URL, and behind a colon the path of a file in it."""
    at = text.find(":/", text.index("://") + 3)
    return (text, "", "") if at < 0 else (text[:at], ":", text[at + 1 :])


def _far(text: str, remote: Remote) -> Part:
    url, _, inside = _split(text)
    whole = Part(url, (), shown(url), remote=remote)
    if not inside:
        return whole
    from .iso9660 import pieces

    return replace(whole, ranges=pieces(whole, inside), name=shown(text))


def _is_stream(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        # Standard input, unless a file has this name.
        return path == "-"


def _is_file(path: str) -> bool:
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        number = error.errno or errno.EIO
        raise from_engine("io", number, f"{path}: {os.strerror(number)}", path) from None


def _inside(iso: str, inside: str, name: str) -> Part:
    from .iso9660 import pieces

    return Part(iso, pieces(iso, inside), name)
