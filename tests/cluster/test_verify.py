"""verify with an executor finds what a local run finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cowcloop
import pytest
from cowcloop.cluster import verifying
from support import cloop, iso, workers
from support.kinds import KINDS, Kind

BLOCK = 4096


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "RANGE", 3 * BLOCK)


def _blind() -> workers.Inline:
    def unseen(_number: int, call: Any) -> Any:
        return call() if executor.calls[-1] == "check_bytes" else None

    executor = workers.Inline(unseen)
    return executor


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_whole_and_damaged(kind: Kind, blind: bool, tmp_path: Path) -> None:
    image, _ = kind.make()
    path = tmp_path / "image"
    path.write_bytes(image)
    whole = cowcloop.CloopImage(path)
    executor = _blind() if blind else workers.Inline()
    assert whole.verify(executor=executor) == whole.verify()
    info = whole.info()
    # In the middle of the data, wherever that is.
    at = len(image) // 2 if info.layout == "header" else 600
    path.write_bytes(image[:at] + bytes(b ^ 0x55 for b in image[at : at + 40]) + image[at + 40 :])
    try:
        found = whole.verify()
    except cowcloop.ImageFormatError:
        with pytest.raises(cowcloop.ImageFormatError):
            whole.verify(executor=executor)
        return
    assert whole.verify(executor=executor) == found


def _damaged(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    image = bytearray(cloop.build(cloop.sample(60 * BLOCK, BLOCK), BLOCK))
    for at in range(len(image) // 4, len(image), len(image) // 9):
        image[at] ^= 0xFF
    path.write_bytes(image)
    return path


@pytest.mark.parametrize("blind", [False, True])
def test_processes(tmp_path: Path, blind: bool) -> None:
    image = cowcloop.CloopImage(_damaged(tmp_path))
    want = image.verify()
    assert want.bad_blocks > 3
    seen: list[tuple[int, int | None]] = []
    with workers.processes(blind=blind) as processes:
        found = image.verify(executor=processes, progress=lambda *at: seen.append(at))
    assert found == want
    assert seen[-1] == (60 * BLOCK, 60 * BLOCK)


@pytest.mark.parametrize("blind", [False, True])
def test_inside_an_iso_image(tmp_path: Path, blind: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    _damaged(tmp_path).rename(folder / "KNOPPIX")
    disc = iso.make(folder, tmp_path / "cd.iso")
    image = cowcloop.CloopImage(f"{disc}:/KNOPPIX")
    executor = _blind() if blind else workers.Inline()
    found = image.verify(executor=executor)
    assert found == image.verify()
    assert not found.ok
