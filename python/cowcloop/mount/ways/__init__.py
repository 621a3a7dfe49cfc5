"""The ways from a served device to a mounted directory, a file each, the best one first."""

from __future__ import annotations

from cowcloop.mount.errors import MountError
from cowcloop.mount.ways.base import Attach, Mounting, Way
from cowcloop.mount.ways.fuse import ByFuse
from cowcloop.mount.ways.fuse2fs import ByFuse2fs
from cowcloop.mount.ways.nbd import ByNbd
from cowcloop.mount.ways.ublk import ByUblk
from cowcloop.server.messages import Message
from cowcloop.server.process import Report

__all__ = ["WAYS", "Attach", "Mounting", "Way", "choose", "named"]

# In this order they are tried where none is asked for.
_TRIED: tuple[Way, ...] = (ByUblk(), ByFuse(), ByFuse2fs())
# The kernel's NBD takes twice as many turns as FUSE, so it is only taken when asked for.
_ALL: tuple[Way, ...] = (*_TRIED, ByNbd())

#: The names of all ways.
WAYS = tuple(way.name for way in _ALL)


def named(name: str) -> Way:
    """The way of this name."""
    return next(way for way in _ALL if way.name == name)


def choose(via: str | None, report: Report) -> Way:
    """The way that was asked for, or the first that this machine and this user have.

    MountError says why the one that was asked for cannot be taken; `report` is told why those
    before the chosen one were not.
    """
    if via is not None:
        way = named(via)
        reason = way.refusal()
        if reason is not None:
            raise MountError(reason)
        return way
    *others, last = _TRIED
    for way in others:
        reason = way.refusal()
        if reason is None:
            return way
        report(Message("debug", f"not via {way.name}: {reason}"))
    return last
