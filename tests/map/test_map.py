"""map: what a picture shows is what the device holds."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import sys
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import pytest
from support import cloop, cowfile
from support.programs import cowcloop, refused, run

UNIT = cowfile.UNIT
BLOCK = 4096
#: 80 columns of 16 rows, a block of the image each: zeros, text, noise, zeros.
PLAIN = b"".join(
    [
        b"\0" * 320 * BLOCK,
        b"text" * (320 * BLOCK // 4),
        os.urandom(320 * BLOCK),
        b"\0" * 320 * BLOCK,
    ]
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK))
    return path


def _lines(*arguments: str | Path) -> list[str]:
    return cowcloop("map", *arguments).stdout.decode().splitlines()


def test_the_picture_in_characters(image: Path) -> None:
    lines = _lines(image)
    assert lines[0].startswith("i.img: 5.0 MiB, ")
    assert lines[0].endswith("a cell is 4.0 KiB")
    assert lines[1:17] == ["." * 80] * 4 + ["1" * 80] * 4 + ["4" * 80] * 4 + ["." * 80] * 4
    assert ".  zeros: 2.5 MiB (50.0 %)" in lines
    assert "1  compressed to 25 % or less: 1.2 MiB (25.0 %)" in lines
    assert "#  changed in the cowfile: 0 bytes (0.0 %)" in lines


@pytest.mark.parametrize("option", ["--svg", "--png"])
def test_the_picture_goes_where_other_outputs_go(
    image: Path, tmp_path: Path, root: None, option: str
) -> None:
    """Into a device or FIFO, to what a symbolic link points to, with the mode of an old file."""
    null, old, link = tmp_path / "null", tmp_path / "old", tmp_path / "link"
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    cowcloop("map", image, option, null)
    assert stat.S_ISCHR(null.lstat().st_mode)
    old.touch(0o600)
    link.symlink_to(old)
    cowcloop("map", image, option, link)
    assert link.is_symlink()
    assert old.stat().st_mode & 0o777 == 0o600
    assert old.stat().st_size > 1000


@pytest.mark.parametrize("layout", cowfile.LAYOUTS)
def test_changes(image: Path, tmp_path: Path, layout: str) -> None:
    cow = tmp_path / "c"
    changed = {0: b"x" * UNIT, 4 * 81: b"x" * UNIT, 4 * 1279 + 3: b"x" * UNIT}
    cow.write_bytes(cowfile.build(PLAIN, changed, layout))
    lines = _lines(image, cow)
    assert lines[1] == "#" + "." * 79
    assert lines[2] == ".#" + "." * 78
    assert lines[16] == "." * 79 + "#"
    assert "#  changed in the cowfile: 3.0 KiB (0.1 %)" in lines


def test_damage_is_shown_where_it_was_looked_for(image: Path) -> None:
    data = bytearray(image.read_bytes())
    at = cloop_offset(bytes(data), 700)
    data[at + 20 : at + 40] = b"\xff" * 20
    image.write_bytes(data)
    assert "X" not in "".join(_lines(image)[1:17])
    lines = _lines(image, "--check")
    assert lines[1 + 700 // 80][700 % 80] == "X"
    assert "".join(lines[1:17]).count("X") == 1
    assert "X  damaged: 4.0 KiB (0.1 %)" in lines


def cloop_offset(image: bytes, block: int) -> int:
    """Where a block of a V2.0 image begins."""
    (offset,) = struct.unpack_from(">Q", image, 136 + 8 * block)
    assert isinstance(offset, int)
    return offset


def test_svg(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.svg"
    assert cowcloop("map", image, "--svg", out).stdout == b""
    tree = ET.fromstring(out.read_text())
    space = "{http://www.w3.org/2000/svg}"
    words = [text.text for text in tree.iter(f"{space}text")]
    assert any("zeros: 2.5 MiB (50.0 %)" in (text or "") for text in words)
    area = sum(
        int(rect.get("width", "0")) * int(rect.get("height", "0"))
        for rect in tree.iter(f"{space}rect")
        if rect.get("fill") == "#104e8b" and rect.get("stroke") is None
    )
    # A quarter of the cells, 8 x 8 each: noise; and a quarter of the bar of totals.
    assert area == 128 * 96 // 4 * 64 + 1024 // 4 * 20
    # Round offsets stand beside the cells.
    offsets = [text for text in words if re.fullmatch(r"[\d.]+ [KM]iB", text or "")]
    assert offsets[:3] == ["512.0 KiB", "1.0 MiB", "1.5 MiB"]


def test_a_long_name_is_cut(image: Path, tmp_path: Path) -> None:
    long = image.rename(tmp_path / ("n" * 200 + "end"))
    out = tmp_path / "o.svg"
    cowcloop("map", long, "--svg", out)
    tree = ET.fromstring(out.read_text())
    heading = next(tree.iter("{http://www.w3.org/2000/svg}text")).text or ""
    assert len(heading) <= 128
    assert heading.startswith("nnnn")
    assert "...n" in heading
    assert "end: 5.0 MiB, data" in heading


def _chunks(data: bytes) -> dict[bytes, bytes]:
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    found = {}
    at = 8
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(name + body),)
        found[name] = body
        at += 12 + length
    return found


def test_png(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.png"
    cowcloop("map", image, "--png", out)
    found = _chunks(out.read_bytes())
    width, height = struct.unpack_from(">II", found[b"IHDR"])
    pixels = zlib.decompress(found[b"IDAT"])
    assert len(pixels) == (width + 1) * height
    rows = [pixels[(width + 1) * y + 1 : (width + 1) * (y + 1)] for y in range(height)]
    # Cells of 8 x 8 after the border and the offsets: zeros, text, noise, zeros.
    cells = [row[96 : 96 + 1024 : 8] for row in rows[40 : 40 + 768 : 8]]
    kinds = [kind for kind in (0, 1, 4, 0) for _ in range(24)]
    assert cells == [bytes([kind]) * 128 for kind in kinds]
    assert b"zeros: 2.5 MiB" in found[b"iTXt"]
    # The letters of the legend are those of the font: there is a "z" beside the first square.
    legend = next(y for y in range(845, height) if rows[y][96] == 0)
    z = [bytes(rows[legend + 1 + y][120:128]).replace(b"\x07", b".") for y in range(13)]
    drawn = [line.replace(b"\x08", b"#").decode() for line in z]
    assert [line for line in drawn if "#" in line] == [
        ".######.",
        ".....#..",
        "....#...",
        "...#....",
        "..#.....",
        ".######.",
    ]


def test_totals_do_not_depend_on_the_size_of_cells(tmp_path: Path) -> None:
    """Blocks that are compressed differently within one cell are told apart in the totals."""
    image = tmp_path / "i.img"
    pairs = b"".join(b"text" * (BLOCK // 4) + os.urandom(BLOCK) for _ in range(1280))
    image.write_bytes(cloop.build(pairs, BLOCK))
    lines = _lines(image)
    assert "1  compressed to 25 % or less: 5.0 MiB (50.0 %)" in lines
    assert "4  to more, or not compressed: 5.0 MiB (50.0 %)" in lines


@pytest.mark.parametrize("term", ["xterm", "xterm-256color"])
def test_kinds_are_told_apart_with_few_colours(term: str) -> None:
    """No two squares of the legend have one colour."""
    script = (
        "from cowcloop.picture import Picture, terminal\n"
        "parts = [(1, [0] * 4, 0, 0), (0, [0] * 4, 0, 1)]\n"
        "parts += [(0, [int(n == at) for at in range(4)], 1, 0) for n in range(5)]\n"
        "terminal.show(Picture.of('t', 7, parts, 4, [(6, 1)]))\n"
    )
    env = {"TERM": term, "FORCE_COLOR": "1", "COLORTERM": "", "NO_COLOR": ""}
    shown = run(sys.executable, "-c", script, env=env).stdout.decode()
    squares = re.findall(r"(\x1b\[[\d;]*m)██", shown)
    assert len(squares) >= 6
    assert len(set(squares)) == len(squares)


def test_a_picture_of_a_terabyte(tmp_path: Path) -> None:
    raw = tmp_path / "huge"
    with raw.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"x" * 8192)
    lines = _lines(raw)
    assert lines[0].startswith("huge: 1.0 TiB")
    assert "".join(lines[1:17]).strip(".") == "4"


def test_totals_as_json(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    cow.write_bytes(cowfile.build(PLAIN, {0: b"x" * UNIT}))
    totals = json.loads(cowcloop("map", image, cow, "--json").stdout)
    assert totals["size"] == len(PLAIN)
    assert totals["image"] == str(image)
    assert totals["cowfiles"] == [{"path": str(cow)}]
    assert (totals["changed"], totals["zero"]) == (UNIT, 640 * BLOCK - UNIT)
    assert totals["compressed_to_25_percent"] == totals["compressed_to_more"] == 320 * BLOCK
    assert totals["damaged"] == 0
    assert cowcloop("map", image, "--json", "--svg", tmp_path / "o", expect=2).stdout == b""


def test_what_is_refused(image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    refused("map", image, "--png", image, says="i.img")
    refused("map", tmp_path / "nowhere", says="nowhere")
    refused("map", image, tmp_path / "nowhere", says="nowhere")
    refused("map", image, "--svg", tmp_path / "no/where.svg", says="where.svg")
    assert image.read_bytes() == before
    assert list(tmp_path.iterdir()) == [image]
    for words in ((), (image, "--png", "-"), (image, "--colour")):
        assert len(cowcloop("map", *words, expect=2).stderr.splitlines()) == 1
