"""Measurements of images on a server give figures, or say what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benches import far, web
from benches.line import Line
from benches.material import Material
from benches.model import UnavailableError
from benches.programs import run, seconds
from benches.runner import measure
from benches.works import Setting, remote, remote_sessions, trust


def test_every_work(small: Material, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small image, once, over lines that are quick."""
    for name in ("SLOW", "LONG"):
        monkeypatch.setattr(remote, name, Line(1e9, 0.001))
    monkeypatch.setattr(remote_sessions, "SESSIONS", 5)
    setting = Setting(small, scratch, seconds=1)
    for module in (remote, remote_sessions, trust):
        for work in module.works(setting):
            for row in measure(work, 1):
                assert row.unavailable or min(row.figures) >= 0, row
    assert not [*scratch.iterdir()]


def test_a_line_is_as_slow_as_it_is_said_to_be(scratch: Path) -> None:
    """And the server at its end knows what it was asked for."""
    file = scratch / "a"
    file.write_bytes(bytes(1 << 20))
    try:
        with web.serving(scratch, Line(5e6, 0.05)) as site:
            command = ["curl", "--silent", "--fail", "--output", "/dev/null"]
            run([*command, "--range", "65536-131072", site.url(file)])
            assert dict(site.chunks(file)) == {1: 1, 2: 1}
            assert seconds([*command, site.url(file)]) > 0.05 + 0.9 * (1 << 20) / 5e6
    except UnavailableError as error:
        pytest.skip(str(error))


def test_what_is_read_is_what_the_trace_has(small: Material) -> None:
    """A few percent of the image."""
    try:
        prepared = far.prepare(small)
    except UnavailableError as error:
        pytest.skip(str(error))
    blocks = prepared.blocks()
    assert len(blocks) == len(set(blocks))
    assert 0.02 < len(blocks) / small.blocks < 0.5
