"""A TARGET on the command line: a served device, or a cowfile that a device has in use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cowcloop.errors import CowcloopError, NotFoundError
from cowcloop.files import MEMORY

if TYPE_CHECKING:
    from cowcloop.registry import Entry

_SUFFIX = ".cow"


def device_of(target: str) -> tuple[Entry | None, str | None]:
    """The served device that `target` names or whose last cowfile it is, and the session.

    None stands for a cowfile that none of this user's devices has.
    """
    from cowcloop import registry

    if not os.path.isfile(target):
        entry = _find(target)
        return entry, registry.session_in(target, entry)
    path = os.path.realpath(target)
    folder, name = os.path.split(path)
    for entry in registry.entries():
        record = entry.record
        if record is None:
            continue
        if record.last_cowfile is not None and os.path.realpath(record.last_cowfile) == path:
            return entry, None
        sessions = record.sessions
        if sessions and os.path.realpath(sessions) == folder and name.endswith(_SUFFIX):
            return entry, name[: -len(_SUFFIX)]
    return None, None


def one_session(target: str, named: str | None, option: str | None) -> str | None:
    """The session that the target names or --session does."""
    import rich_click as click

    if named is not None and option not in (None, named):
        raise click.UsageError(f"--session {option}: {target} is of the session {named}")
    return option or named


def cowfile_place(target: str) -> str:
    """The path of a cowfile, or of the folder with the cowfiles of sessions."""
    from cowcloop import _core

    if os.path.isfile(target):
        _core.cow_info(target)
        return target
    record = _find(target).record
    assert record is not None
    if record.sessions:
        return record.sessions
    if not record.cowfiles:
        raise CowcloopError(f"{target}: the device has no cowfile")
    if record.cowfiles[-1] == MEMORY:
        raise CowcloopError(f"{target}: the device's changes are in memory, not in a cowfile")
    return record.cowfiles[-1]


def _find(target: str) -> Entry:
    """A served device; a target that looks like a file name is reported missing as a file."""
    import errno

    from cowcloop import registry

    try:
        return registry.find(target)
    except registry.RegistryError:
        if "://" in target or os.path.exists(target):
            raise
        message = f"{target}: neither a cowfile nor a served device (cowcloop list shows them)"
        raise NotFoundError(errno.ENOENT, message) from None
