"""--json of the commands that make something: one document about what was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import cloop, cowfile
from support.programs import cowcloop
from support.server import attach

UNIT = cowfile.UNIT
PLAIN = cloop.sample(160 * UNIT, 4096)
CHANGED = {0: b"a" * UNIT, 9: b"b" * UNIT}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("raw").write_bytes(PLAIN)
    Path("cow").write_bytes(cowfile.build(PLAIN, CHANGED))
    return tmp_path


def _document(*words: str) -> Any:
    done = cowcloop(*words, "--json")
    assert done.stderr == b""
    return json.loads(done.stdout)


def test_images(files: Path) -> None:
    made = _document("create", "raw", "image", "--block-size", "4096")
    info = _document("info", "image")
    assert made["input_size"] == len(PLAIN)
    same = ("path", "size", "blocks", "compressed_bytes", "file_size")
    assert {name: made[name] for name in same} == {name: info[name] for name in same}

    new = _document("commit", "image", "cow", "new")
    info = _document("info", "new")
    # Two were changed; the last one is always compressed anew.
    assert (new["copied_blocks"], new["blocks"]) == (37, 40)
    assert {name: new[name] for name in ("path", "size", "blocks", "file_size")} == {
        name: info[name] for name in ("path", "size", "blocks", "file_size")
    }

    plain = _document("extract", "image", "out")
    zeros = PLAIN.count(bytes(4096))
    assert zeros
    assert plain == {"path": "out", "size": len(PLAIN), "holes": plain["holes"]}
    assert 0 < plain["holes"] <= len(PLAIN)


def test_cowfiles(files: Path) -> None:
    packed = _document("cow", "pack", "cow", "packed")
    assert packed == {"path": "packed", "blocks_used": 2, "bytes": Path("packed").stat().st_size}
    back = _document("cow", "unpack", "packed", "back")
    assert (back["path"], back["blocks_used"]) == ("back", 2)
    copy = _document("cow", "snapshot", "cow", "copy")
    assert (copy["path"], copy["blocks_used"], type(copy["shared"])) == ("copy", 2, bool)
    uri = attach("raw", "cow")
    served = _document("cow", "snapshot", uri, "served")
    assert (served["path"], served["blocks_used"]) == ("served", 2)
    cowcloop("detach", uri)
    merged = _document("cow", "merge", "--yes", "raw", "cow")
    assert merged == {"path": "raw", "blocks": 2, "already": False, "resumed": False}
    assert _document("cow", "merge", "--yes", "raw", "cow")["already"]
    space = _document("cow", "watch", "cow")
    assert space["path"] == "cow"
    assert 0 <= space["free"] <= space["total"]


@pytest.mark.parametrize(
    "words",
    [
        ("create", "raw", "-"),
        ("extract", "raw", "-"),
        ("commit", "raw", "cow", "-"),
        ("cow", "pack", "cow", "-"),
    ],
    ids=" ".join,
)
def test_not_together_with_data(files: Path, words: tuple[str, ...]) -> None:
    done = cowcloop(*words, "--json", expect=2)
    assert done.stdout == b""
    assert b"--json" in done.stderr
