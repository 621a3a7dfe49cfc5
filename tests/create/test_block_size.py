"""Block sizes that do not divide the source, that do, and that not every program reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cowcloop import block_size
from support import cloop
from support.programs import cowcloop, one_line, refused

SIZE = 1000 << 10
PLAIN = cloop.sample(SIZE, 4096)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(PLAIN)
    return path


def test_padding_is_told_with_a_remedy_that_works(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "i.img"
    done = cowcloop("create", raw, out)
    line = one_line(done.stderr.decode(), ("disk.raw", str(SIZE), "24576 bytes", "--exact"))
    assert cowcloop("extract", out, "-").stdout == cloop.padded(PLAIN, 65536)
    found = re.search(r"--block-size (\d+)", line)
    assert found
    done = cowcloop("create", "--force", "--block-size", found[1], raw, out)
    assert done.stderr == b""
    assert cowcloop("extract", out, "-").stdout == PLAIN


def test_exact_adds_nothing(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "i.img"
    assert cowcloop("create", "--exact", raw, out).stderr == b""
    assert cowcloop("extract", out, "-").stdout == PLAIN
    info = json.loads(cowcloop("info", "--json", out).stdout)
    assert (info["size"], info["block_size"]) == (SIZE, 64000)


def test_a_source_that_fits_is_told_nothing(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "i.img"
    raw.write_bytes(PLAIN[: 5 << 16])
    assert cowcloop("create", raw, out).stderr == b""
    assert cowcloop("create", "--force", "--exact", raw, out).stderr == b""
    assert json.loads(cowcloop("info", "--json", out).stdout)["block_size"] == 65536


def test_a_stream_is_told_when_its_size_is_known(tmp_path: Path) -> None:
    out = tmp_path / "i.img"
    done = cowcloop("create", "-", out, stdin=PLAIN)
    one_line(done.stderr.decode(), ("standard input", "24576 bytes", "--block-size 64000"))
    refused("create", "--exact", "-", tmp_path / "other", stdin=PLAIN, says=("--exact", "size"))


def test_a_size_that_no_block_divides(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "i.img"
    raw.write_bytes(PLAIN[:1001])
    one_line(cowcloop("create", raw, out).stderr.decode(), "no block size divides it")
    refused("create", "--exact", raw, tmp_path / "other", says=("1001 bytes", "--exact"))


def test_a_size_that_only_small_blocks_divide(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "i.img"
    raw.write_bytes(PLAIN[: 512 * 1009] + PLAIN[: 512 * 1009] * 3 + PLAIN[: 512 * 2089])
    size = raw.stat().st_size
    done = cowcloop("create", "--exact", raw, out)
    assert cowcloop("extract", out, "-").stdout == raw.read_bytes()
    chosen = json.loads(cowcloop("info", "--json", out).stdout)["block_size"]
    assert size % chosen == 0
    assert (b"compress badly" in done.stderr) == (chosen < 4096)


def test_a_directory_is_told_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    assert cowcloop("create", folder, tmp_path / "i.img").stderr == b""
    assert cowcloop("create", "--exact", folder, tmp_path / "j.img").stderr == b""


def test_blocks_that_the_kernel_driver_refuses(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "i.img"
    raw.write_bytes(b"\0" * (4 << 20))
    assert cowcloop("create", "--block-size", "1M", raw, out).stderr == b""
    done = cowcloop("create", "--force", "--block-size", "2M", raw, out)
    one_line(done.stderr.decode(), ("kernel's cloop driver refuses", "1.0 MiB"))


def test_exact_and_a_block_size_contradict_each_other(raw: Path, tmp_path: Path) -> None:
    done = cowcloop("create", "--exact", "--block-size", "4K", raw, tmp_path / "i", expect=2)
    assert b"--block-size" in done.stderr


def test_commit_tells_of_padding_too(raw: Path, tmp_path: Path) -> None:
    cow, out = tmp_path / "c.cow", tmp_path / "i.img"
    cow.touch()
    cowcloop("detach", cowcloop("attach", raw, cow).stdout.decode().strip())
    done = cowcloop("commit", raw, cow, out)
    one_line(done.stderr.decode(), ("24576 bytes", "--block-size 64000"))
    done = cowcloop("commit", "--force", "--block-size", "64000", raw, cow, out)
    assert done.stderr == b""
    assert cowcloop("extract", out, "-").stdout == PLAIN


@pytest.mark.parametrize("count", [1, 2, 3, 7, 97, 128, 1000, 1009, 2**31 - 1, 625_142_448])
def test_the_block_size_nearest_to_the_usual_one(count: int) -> None:
    found = block_size.dividing(count * 512)
    assert found is not None
    assert found % 512 == 0
    assert count * 512 % found == 0
    assert found <= 1 << 20
    off = max(found / 65536, 65536 / found)
    others = [n * 512 for n in range(1, 2049) if count % n == 0]
    assert all(max(other / 65536, 65536 / other) >= off for other in others)
    assert block_size.dividing(count * 512 + 1) is None
