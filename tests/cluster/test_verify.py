"""verify with an executor finds what a local run finds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cowcloop
import pytest
from cowcloop.cluster import tasks, verifying
from support import cloop, iso, workers
from support.kinds import KINDS, Kind
from support.liar import Liar, liar

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
    # Those that see the image read it themselves.
    assert set(executor.calls) == ({"check_seen", "check_bytes"} if blind else {"check_seen"})
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


@contextlib.contextmanager
def _far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Iterator[Liar]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with liar(content) as server:
        yield server


def test_workers_read_a_url_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = cloop.build(cloop.sample(60 * BLOCK, BLOCK), BLOCK)
    with _far(tmp_path, monkeypatch, content) as server:
        image = cowcloop.CloopImage(server.url + "?token=t0ken")
        executor = workers.Inline()
        found = image.verify(executor=executor)
        assert (found.ok, found.blocks) == (True, 60)
        assert set(executor.calls) == {"check_seen"}
        # Blind ones get the bytes.
        executor = _blind()
        assert image.verify(executor=executor) == found
        assert "check_bytes" in executor.calls
        with workers.processes() as processes:
            assert image.verify(executor=processes) == found


def test_a_damaged_image_far_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker finds bad, which may be the network's fault, is looked at again here."""
    with _far(tmp_path, monkeypatch, _damaged(tmp_path).read_bytes()) as server:
        image = cowcloop.CloopImage(server.url)
        want = image.verify()
        assert not want.ok
        executor = workers.Inline()
        assert image.verify(executor=executor) == want
        assert set(executor.calls) == {"check_seen", "check_bytes"}


def test_a_server_that_tells_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker might see another image, so it gets the bytes."""
    content = cloop.build(cloop.sample(60 * BLOCK, BLOCK), BLOCK)
    with _far(tmp_path, monkeypatch, content) as server:
        server.etag = server.date = None
        executor = workers.Inline()
        assert cowcloop.CloopImage(server.url).verify(executor=executor).ok
        assert set(executor.calls) == {"check_bytes"}


def test_a_worker_that_sees_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another of the servers behind one name may have one."""
    content = cloop.build(cloop.sample(60 * BLOCK, BLOCK), BLOCK)
    with _far(tmp_path, monkeypatch, content) as server:
        etag = server.etag

        def elsewhere(_number: int, call: Any) -> Any:
            if executor.calls[-1] != "check_seen":
                return call()
            server.etag = '"another"'
            tasks._checker.cache_clear()
            result = call()
            server.etag = etag
            assert result is None
            return result

        executor = workers.Inline(elsewhere)
        assert cowcloop.CloopImage(server.url).verify(executor=executor).ok
        assert "check_bytes" in executor.calls
