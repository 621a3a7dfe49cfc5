"""The devices that systemd's units serve as users of their own, for root to see.

Such a unit (contrib/systemd/cowcloop@.service) has a runtime directory /run/cowcloop-NAME, and its
registry in there. Only systemd makes directories in /run, but what is inside is the user's of the
unit to write: nothing there is followed, removed or believed that could harm another.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cowcloop.registry.entry import Entry, at
from cowcloop.registry.record import Record

_RUN = Path("/run")
_MOST = 1000


def entries() -> Iterator[Entry]:
    """The devices of all units; none for another user than root."""
    if os.geteuid() != 0:
        return
    for folder in sorted(_RUN.glob("cowcloop-*/cowcloop")):
        try:
            status = os.lstat(folder)
            names = os.listdir(folder)[:_MOST]
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode) or status.st_uid == 0:
            continue
        for name in sorted(names):
            entry = at(folder / name, owner=status.st_uid)
            if entry.record is not None and _is_plausible(entry.record, status.st_uid):
                yield entry


def _is_plausible(record: Record, owner: int) -> bool:
    """Whether it is of a server that runs as the unit's user, and holds nothing of the system's."""
    values: dict[str, object] = vars(record)
    cowfiles = values["cowfiles"]
    if not isinstance(cowfiles, list):
        return False
    texts = (values["uri"], values["image"], *cowfiles)
    optional = (values["socket"], values["sessions"])
    if not (
        all(isinstance(text, str) for text in texts)
        and all(text is None or isinstance(text, str) for text in optional)
        and isinstance(values["pid"], int)
        and isinstance(values["started"], (int, float))
        and record.device is None
        and record.mount is None
    ):
        return False
    try:
        return os.stat(f"/proc/{record.pid}").st_uid == owner
    except OSError:
        return False
