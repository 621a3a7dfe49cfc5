"""The error of mounting."""

from __future__ import annotations

from cowcloop.errors import CowcloopError


class MountError(CowcloopError):
    """A device could not be mounted or unmounted; the message is one line."""
