"""Each measurement of a mount gives a figure, or says what it is missing."""

from __future__ import annotations

from pathlib import Path

from benches.material import Material
from benches.model import OURS
from benches.runner import measure
from benches.works import Setting, mount, mount_write


def test_every_way(small: Material, scratch: Path) -> None:
    """With a small image, once."""
    setting = Setting(small, scratch, seconds=1)
    for work in [*mount.works(setting), *mount_write.works(setting)]:
        rows = measure(work, 1)
        for row in rows:
            assert row.unavailable or min(row.figures) > 0, row
        # Where cowcloop cannot mount, nothing that takes root and a loop device can.
        ours = next(row for row in rows if row.contender == OURS)
        others = {row.unavailable for row in rows[1:] if "nbdcopy" not in row.contender}
        assert not ours.unavailable or ours.unavailable in others
