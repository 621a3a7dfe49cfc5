"""Each measurement of a mount gives a figure, or says what it is missing, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cowcloop.mounts import at

from benches import mounts
from benches.material import Material
from benches.model import OURS, UnavailableError, Work
from benches.runner import measure
from benches.works import Setting, mount, mount_write, overlay_writes
from benches.works.mount import PLAIN


@pytest.mark.parametrize("fuse", [True, False])
def test_every_way(
    small: Material, scratch: Path, monkeypatch: pytest.MonkeyPatch, fuse: bool
) -> None:
    """With a small image, once; and the same on a machine without FUSE."""
    if not fuse:
        monkeypatch.setattr(mounts, "FUSE", scratch / "fuse")
    setting = Setting(small, scratch, seconds=1)
    for work in [*mount.works(setting), *mount_write.works(setting)]:
        rows = measure(work, 1)
        for row in rows:
            assert row.unavailable or min(row.figures) > 0, row
        # cowcloop takes FUSE, and besides only what the plain image takes: root, a loop device.
        ours, plain = (next(row for row in rows if row.contender == name) for name in (OURS, PLAIN))
        assert ours.unavailable == plain.unavailable or not mounts.FUSE.exists()


def test_a_mount_that_fails(tmp_path: Path) -> None:
    """It is a row that says why, and not the end of the benchmark."""
    holder = tmp_path / "holder"
    holder.write_bytes(bytes(1 << 20))
    with pytest.raises(UnavailableError), mounts.held("squashfs", holder, "file"):
        pass


def test_nbdfuse_after_a_failure(small: Material) -> None:
    """A file that is still open keeps it from being unmounted as usual."""
    try:
        with mounts.by_nbdfuse(small.cloop) as place:
            loop = Path("/sys/class/block", Path(place.device).name, "loop/backing_file")
            file = Path(loop.read_text().rstrip("\n"))
            kept = file.open("rb")
    except UnavailableError as error:
        pytest.skip(str(error))
    kept.close()
    assert at(str(file.parent)) is None
    assert not file.parent.exists()


@pytest.mark.parametrize("works", [mount_write.works, overlay_writes.works])
def test_two_at_once(
    small: Material, scratch: Path, works: Callable[[Setting], Iterator[Work]]
) -> None:
    """What another benchmark writes beside the images stays as it is."""
    others = [scratch / name for name in ("mount-write", "bench.cow", "bench.raw", "bench.qcow2")]
    for file in others:
        file.write_text("another's")
    for work in works(Setting(replace(small, folder=scratch), scratch, seconds=1)):
        measure(work, 1)
    assert [file.read_text() for file in others] == ["another's"] * len(others)
    assert not [*scratch.glob("written-*")]
