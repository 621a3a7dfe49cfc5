"""The error of making a filesystem."""

from __future__ import annotations

from cowcloop.errors import CowcloopError


class Ext2Error(CowcloopError):
    """The filesystem of a directory could not be made."""
