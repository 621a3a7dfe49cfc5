"""The ISO 9660 reader: what genisoimage does not make, and what means harm."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import cowcloop
import pytest
from cowcloop.iso9660 import Disc, contents
from support import cloop, iso
from support.iso import SECTOR, ce, nm, record
from support.programs import cowcloop as program_cowcloop
from support.programs import peak_memory, program, refused, run

BLOCK = 4096
PLAIN = cloop.sample(12 * BLOCK, BLOCK)
#: Where the files come when the root directory takes one sector.
FIRST = iso.ROOT_SECTOR + 1


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _extract(path: Path, inside: str) -> bytes:
    return program_cowcloop("extract", f"{path}:{inside}", "-").stdout


def test_extents_become_one_file(tmp_path: Path) -> None:
    """Out of order and apart; isoinfo, of genisoimage's authors, reads those in a row as we do."""
    image = cloop.build(PLAIN, BLOCK)
    cut = 2 * SECTOR
    parts = (image[:cut], image[cut : 2 * cut], image[2 * cut :])
    places = (FIRST + 30, FIRST + 2, FIRST + 10)
    records = [
        record(b"BIG.;1", place, len(part), flags=iso.MORE_EXTENTS * (number < 2))
        for number, (place, part) in enumerate(zip(places, parts))
    ]
    data = bytearray(iso.disc([*records, record(b"ROW.;1", FIRST + 40, len(image))]))
    data = data.ljust((FIRST + 60) * SECTOR, b"\xee")
    for place, part in (*zip(places, parts), (FIRST + 40, image)):
        data[place * SECTOR : place * SECTOR + len(part)] = part
    path = _write(tmp_path / "cd.iso", bytes(data))
    assert _extract(path, "/BIG") == _extract(path, "/row") == PLAIN
    found = json.loads(program_cowcloop("info", path, "--json").stdout)["images"]
    assert {each["path"]: each["file_size"] for each in found} == {
        f"{path}:/BIG": len(image),
        f"{path}:/ROW": len(image),
    }
    got = run(program("isoinfo", "genisoimage"), "-i", path, "-x", "/ROW.;1").stdout
    assert got == image


def test_a_file_of_more_than_4_gib(tmp_path: Path) -> None:
    """Two extents as xorriso writes them, sparse here."""
    most, rest = 0xFFFFF800, 300 << 20
    path = tmp_path / "cd.iso"
    second = FIRST + most // SECTOR
    records = [
        record(b"BIG.;1", FIRST, most, flags=iso.MORE_EXTENTS),
        record(b"BIG.;1", second, rest),
    ]
    marks = {0: b"begin", most - 2: b"seam", (1 << 32) + 7: b"beyond", most + rest - 3: b"end"}
    with path.open("wb") as file:
        file.write(iso.disc(records))
        file.truncate(FIRST * SECTOR + most + rest)
        for at, mark in marks.items():
            file.seek(FIRST * SECTOR + at)
            file.write(mark)
    with cowcloop.open(f"{path}:/BIG", ":memory:", memory_limit=1 << 20) as disk:
        assert disk.size == most + rest
        for at, mark in marks.items():
            assert disk.pread(len(mark), at) == mark
        disk.pwrite(b"over the seam", most - 5)
        assert disk.pread(13, most - 5) == b"over the seam"


def test_extended_attributes_come_before_the_file(tmp_path: Path) -> None:
    image = cloop.build(PLAIN, BLOCK)
    data = iso.disc([record(b"A.;1", FIRST, len(image), attributes=2)])
    path = _write(tmp_path / "cd.iso", data + bytes(2 * SECTOR) + image)
    assert _extract(path, "/A") == PLAIN


def test_what_does_not_simply_lie_there(tmp_path: Path) -> None:
    image = cloop.build(PLAIN, BLOCK)
    zisofs = b"ZF\x10\x01pz\x04\x0f" + bytes(8)
    link = b"SL\x13\x01\x00" + b"\x08\x00" + b"\x00\x03etc" + b"\x01\x02ab" + b"\x00\x01c"
    records = [
        record(b"FORK.;1", FIRST, 700, flags=iso.ASSOCIATED),
        record(b"FORK.;1", FIRST, len(image), system_use=nm(b"fork")),
        record(b"UNIT.;1", FIRST, len(image), unit=4, gap=2, system_use=nm(b"unit")),
        record(b"PACKED.;1", FIRST, len(image), system_use=nm(b"packed") + zisofs),
        record(b"LINK.;1", FIRST, 0, system_use=nm(b"li", 1) + nm(b"nk") + link),
        record(b"FAR.;1", 1 << 31, len(image), system_use=nm(b"far\x1b[2J")),
    ]
    path = _write(tmp_path / "cd.iso", iso.disc(records, rock_ridge=True) + image)
    # An associated file of the same name is another's resource fork.
    assert _extract(path, "/fork") == PLAIN
    refused("info", f"{path}:/unit", says="is stored interleaved")
    refused("info", f"{path}:/packed", says="zisofs")
    line = refused("info", f"{path}:/link")
    assert "/link is a symbolic link to /etc/abc: name the file itself" in line
    # What a hostile name would do to a terminal is shown, not done.
    line = refused("info", f"{path}:/far\x1b[2J")
    assert r"/far\x1b[2J: lies beyond the end" in line
    found = json.loads(program_cowcloop("info", path, "--json").stdout)
    assert [each["path"] for each in found["images"]] == [f"{path}:/fork"]


def test_names_from_rock_ridge(tmp_path: Path) -> None:
    """Long ones in continuation areas, deep folders, and bytes that are no UTF-8."""
    long, deep = "n" * 200 + " .img", "a/b/c/d/e/f/g/h/i/j"
    tree = tmp_path / "tree"
    (tree / deep).mkdir(parents=True)
    image = cloop.build(PLAIN, BLOCK)
    names = [long, f"{deep}/deep", os.fsdecode(b"caf\xe9 \xff")]
    for name in names:
        (tree / name).write_bytes(image)
    path = iso.make(tree, tmp_path / "cd.iso", "-R")
    for name in names:
        assert _extract(path, f"/{name}") == PLAIN
    found = json.loads(program_cowcloop("info", path, "--json").stdout)["images"]
    assert sorted(each["path"] for each in found) == sorted(f"{path}:/{name}" for name in names)
    # Both are there for people, too, in whatever form.
    assert "deep" in program_cowcloop("info", path).stdout.decode()


def test_cases(tmp_path: Path) -> None:
    """The name as it is written comes before one in other letters."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("disc", "DISC", "Disc", "other"):
        (tree / name).write_bytes(name.encode() * 512)
    path = iso.make(tree, tmp_path / "cd.iso", "-R")
    for name in ("disc", "DISC", "Disc", "other"):
        assert _extract(path, f"/{name}") == name.encode() * 512
    assert _extract(path, "/OTHER") == b"other" * 512


def test_joliet_beside_short_names(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    name = "Größe, a long name.img"
    (tree / name).write_bytes(cloop.build(PLAIN, BLOCK))
    options = ("-J", "-input-charset", "utf-8")
    path = iso.make(tree, tmp_path / "cd.iso", *options)
    assert _extract(path, f"/{name}") == _extract(path, f"/{name.upper()}") == PLAIN


def test_a_directory_in_itself(tmp_path: Path) -> None:
    """It is listed once; a path may go round in it, and ends."""
    image = cloop.build(PLAIN, BLOCK)
    records = [
        record(b"LOOP", iso.ROOT_SECTOR, SECTOR, flags=iso.DIRECTORY),
        record(b"A.;1", FIRST, len(image)),
    ]
    path = _write(tmp_path / "cd.iso", iso.disc(records) + image)
    assert [each["path"] for each in contents(str(path))["images"]] == [f"{path}:/A"]
    assert _extract(path, "/LOOP" * 50 + "/A") == PLAIN


@pytest.mark.parametrize(
    ("records", "options", "says"),
    [
        ([record(b"A.;1", FIRST, 9, flags=iso.MORE_EXTENTS)], {}, "lacks its last extent"),
        (
            [record(b"A.;1", FIRST, 9, flags=iso.MORE_EXTENTS), record(b"B.;1", FIRST, 9)],
            {},
            "lacks its last extent",
        ),
        (
            [record(b"A.;1", FIRST, 1, flags=iso.MORE_EXTENTS)] * 5000,
            {},
            "more than 4096 extents",
        ),
        ([b"\x21" + bytes(32)], {}, "bad directory record"),
        ([b"\xff" + bytes(31) + b"\xf0"], {}, "bad directory record"),
        ([record(b"A.;1", FIRST, 9)], {"root_size": 80}, "bad directory record"),
        ([], {"root_size": 0xFFFFFFFF}, "cut short"),
        (
            [record(b"B.;1", FIRST, 9, system_use=ce(FIRST, 0, 28))],
            {"rock_ridge": True},
            "a name goes on without end",
        ),
        (
            [record(b"B.;1", FIRST, 9, system_use=ce(1 << 31, 0, 28))],
            {"rock_ridge": True},
            "cut short",
        ),
        (
            [record(b"B.;1", FIRST, 9, system_use=b"CL\x0c\x01" + FIRST.to_bytes(4, "little") * 2)],
            {"rock_ridge": True},
            "leads to no directory",
        ),
    ],
)
def test_damaged_directories(
    tmp_path: Path, records: list[bytes], options: dict[str, Any], says: str
) -> None:
    behind = ce(FIRST, 0, 28) * 80 if "rock_ridge" in options else b""
    path = _write(tmp_path / "cd.iso", iso.disc(records, **options) + behind)
    refused("info", f"{path}:/A", says=says)
    done = program_cowcloop("info", path)
    assert b"ISO 9660 image" in done.stdout
    warning = done.stderr.decode()
    assert warning.startswith(f"cowcloop: warning: {path}: ")
    assert says in warning
    assert len(warning.splitlines()) == 1
    assert says in json.loads(program_cowcloop("info", path, "--json").stdout)["problem"]


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (16 * SECTOR + 128, b"\0\0", "logical blocks of 0 bytes"),
        (16 * SECTOR + 128, b"\0\x10", "logical blocks of 4096 bytes"),
        (16 * SECTOR + 1, b"CD002", "not an ISO 9660 image"),
        (16 * SECTOR, b"\x02", "not an ISO 9660 image"),
    ],
)
def test_damaged_descriptors(tmp_path: Path, at: int, value: bytes, says: str) -> None:
    data = bytearray(iso.disc([record(b"A.;1", FIRST, 9)]) + bytes(SECTOR))
    data[at : at + len(value)] = value
    path = _write(tmp_path / "cd.iso", bytes(data))
    refused("info", f"{path}:/A", says=says)


@pytest.mark.parametrize("length", [0, 1, 16 * SECTOR, 17 * SECTOR - 1, 17 * SECTOR, 18 * SECTOR])
def test_cut_short(tmp_path: Path, length: int) -> None:
    data = iso.disc([record(b"A.;1", FIRST, 9)]) + bytes(SECTOR)
    path = _write(tmp_path / "cd.iso", data[:length])
    refused("info", f"{path}:/A")
    program_cowcloop("info", path, expect=None)


def test_a_hostile_image_costs_little(tmp_path: Path) -> None:
    """A directory of a gigabyte, full of the shortest records: bounded time and memory."""
    sector = (record(b"A", FIRST, 4096) * (SECTOR // 34)).ljust(SECTOR, b"\0")
    path = tmp_path / "cd.iso"
    with path.open("wb") as file:
        file.write(iso.disc([], root_size=1 << 30))
        for _ in range(64):
            file.write(sector * 1024)
        file.truncate(2 << 30)
    begin = time.monotonic()
    for arguments, code in (((path,), 0), ((f"{path}:/B",), 1)):
        memory, said = peak_memory("info", *arguments, expect=code)
        assert memory < 300 << 20
        assert len(said.splitlines()) == 1
        assert "files were looked into" in said or "more than 64 MiB of directories" in said
    assert time.monotonic() - begin < 100


def test_random_damage(tmp_path: Path) -> None:
    """Whatever the bytes are: an answer, or one line of error that names the file."""
    tree = tmp_path / "tree"
    (tree / "KNOPPIX/deep").mkdir(parents=True)
    (tree / "KNOPPIX/KNOPPIX").write_bytes(cloop.build(PLAIN, BLOCK))
    (tree / "a long name.txt").write_text("text")
    (tree / "KNOPPIX/link").symlink_to("KNOPPIX")
    whole = iso.make(tree, tmp_path / "sound.iso", "-R", "-J").read_bytes()
    # All that is not a file's data: this is where the reader looks.
    used = [
        at
        for at in range(16 * SECTOR, len(whole), SECTOR)
        if whole[at : at + SECTOR].strip(b"\0") and at < whole.index(cloop.build(PLAIN, BLOCK))
    ]
    path = tmp_path / "cd.iso"
    answers = set()
    said = []
    for seed in range(400):
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 25)):
            at = rng.choice(used) + rng.randrange(SECTOR) // rng.choice((1, 1, 8))
            data[at] = rng.choice((0, 255, rng.randrange(256)))
        path.write_bytes(data)
        for inside in (None, "/KNOPPIX/KNOPPIX", "/nothing/here"):
            try:
                if inside is None:
                    contents(str(path))
                else:
                    with Disc(str(path)) as disc:
                        disc.pieces(inside)
                answers.add("answer")
            except cowcloop.CowcloopError as error:
                answers.add(type(error).__name__)
                said.append(str(error))
    assert [line for line in said if not line.startswith(str(path)) or "\n" in line] == []
    assert {"answer", "NotFoundError", "ImageFormatError"} <= answers
