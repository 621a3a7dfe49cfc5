"""The ISO 9660 reader: what genisoimage does not make, and what means harm."""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import time
from pathlib import Path
from typing import Any

import cowcloop
import pytest
from cowcloop import iso9660
from cowcloop.iso9660 import medium
from support import cloop, iso
from support.iso import SECTOR, ce, nm, record
from support.programs import cowcloop as program_cowcloop
from support.programs import one_line, peak_memory, program, refused, run

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
    link = b"SL\x13\x01\x00" + b"\x08\x00" + b"\x00\x03etc" + b"\x01\x02ab" + b"\x00\x01c"
    records = [
        record(b"FORK.;1", FIRST, 700, flags=iso.ASSOCIATED),
        record(b"FORK.;1", FIRST, len(image), system_use=nm(b"fork")),
        record(b"UNIT.;1", FIRST, len(image), unit=4, gap=2, system_use=nm(b"unit")),
        record(b"LINK.;1", FIRST, 0, system_use=nm(b"li", 1) + nm(b"nk") + link),
        record(b"FAR.;1", 1 << 31, len(image), system_use=nm(b"far\x1b[2J")),
    ]
    path = _write(tmp_path / "cd.iso", iso.disc(records, rock_ridge=True) + image)
    # An associated file of the same name is another's resource fork.
    assert _extract(path, "/fork") == PLAIN
    refused("info", f"{path}:/unit", says="is stored interleaved")
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


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([record(b"A.;1", FIRST, 9, flags=iso.MORE_EXTENTS)], "extents are not complete"),
        (
            [record(b"A.;1", FIRST, 9, flags=iso.MORE_EXTENTS), record(b"B.;1", FIRST, 9)],
            "extents are not complete",
        ),
        ([record(b"A.;1", FIRST, 1, flags=iso.MORE_EXTENTS)] * 5000, "more than 4096"),
    ],
)
def test_files_with_damaged_extents(tmp_path: Path, records: list[bytes], says: str) -> None:
    path = _write(tmp_path / "cd.iso", iso.disc(records))
    refused("info", f"{path}:/A", says=says)
    assert json.loads(program_cowcloop("info", path, "--json").stdout)["images"] == []


_CL = b"CL\x0c\x01" + FIRST.to_bytes(4, "little") + FIRST.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("records", "options"),
    [
        ([record(b"LOOP", iso.ROOT_SECTOR, SECTOR, flags=iso.DIRECTORY)], {}),
        ([record(b"NOWHERE", 1 << 31, SECTOR, flags=iso.DIRECTORY)], {}),
        ([record(b"A.;1", FIRST, 9)], {"root_size": 80}),
        ([], {"root_size": 0xFFFFFFFF}),
        ([record(b"B.;1", FIRST, 9, system_use=ce(FIRST, 0, 28))], {"rock_ridge": True}),
        ([record(b"B.;1", FIRST, 9, system_use=_CL)], {"rock_ridge": True}),
        ([record(b"B.;1", FIRST, 9, system_use=b"SL\0\0")], {"rock_ridge": True}),
    ],
)
def test_damaged_directories(tmp_path: Path, records: list[bytes], options: dict[str, Any]) -> None:
    """One of them makes the whole disc unreadable, in one line that says so."""
    behind = ce(FIRST, 0, 28) * 80
    path = _write(tmp_path / "cd.iso", iso.disc(records, **options) + behind)
    line = refused("info", f"{path}:/A", says="mount it, or copy the image out of it")
    assert line.startswith(f"cowcloop: {path}: ")
    assert "damaged ISO 9660 image" in line or "more than 16 MiB of directories" in line
    # A disc it is, all the same; but whether it has images is not known.
    done = program_cowcloop("info", path, expect=1)
    assert b"ISO 9660 image" in done.stdout
    assert b"not known" in done.stdout
    assert one_line(done.stderr.decode()) == line
    found = json.loads(program_cowcloop("info", path, "--json", expect=1).stdout)
    assert f"cowcloop: {found['problem']}" == line
    assert found["readable"] is False


@pytest.mark.parametrize(
    "error", [RecursionError(), MemoryError(), struct.error("x\ny"), KeyError(7), SystemError("?")]
)
def test_what_the_library_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: object) -> None:
        raise error

    path = _write(tmp_path / "cd.iso", iso.disc([]))
    monkeypatch.setattr("pycdlib.PyCdlib.open_fp", failing)
    with pytest.raises(cowcloop.ImageFormatError, match="pycdlib cannot read") as caught:
        iso9660.pieces(str(path), "/A")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (16 * SECTOR + 128, b"\0\0", "damaged ISO 9660 image"),
        (16 * SECTOR + 128, b"\0\x10", "damaged ISO 9660 image"),
        (16 * SECTOR + 1, b"CD002", "not an ISO 9660 image"),
        (16 * SECTOR, b"\x02", "damaged ISO 9660 image"),
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
    """Directories of a gigabyte, and one as large as is read: bounded memory, and an end."""
    path = tmp_path / "cd.iso"
    many = [record(b"%08d" % number, FIRST, 4096) for number in range(300_000)]
    for data, read in ((iso.disc([], root_size=1 << 30), 1), (iso.disc(many), 0)):
        path.write_bytes(data)
        os.truncate(path, 2 << 30)
        for arguments, code in (((path,), read), ((f"{path}:/B",), 1)):
            memory, said = peak_memory("info", *arguments, expect=code)
            assert memory < 500 << 20
            assert len(said.splitlines()) == 1
            assert (
                "first 100000 files" in said
                or "more than 16 MiB of directories" in said
                or "no such file" in said
            )


@pytest.mark.parametrize("names", ["same", "backwards"])
def test_a_directory_out_of_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    """pycdlib takes the square of the time for one: it is stopped."""
    monkeypatch.setattr(medium, "_MOST_SECONDS", 1)
    numbers = [0] * 30_000 if names == "same" else range(30_000, 0, -1)
    records = [record(b"%08d" % number, FIRST, 9) for number in numbers]
    path = _write(tmp_path / "cd.iso", iso.disc(records))
    begin = time.thread_time()
    with pytest.raises(cowcloop.ImageFormatError, match="more than 1 seconds to read"):
        iso9660.pieces(str(path), "/A")
    assert time.thread_time() - begin < 10


def test_the_system_area_is_not_judged(tmp_path: Path) -> None:
    """What looks like a boot record to pycdlib, and like no sound one."""
    data = bytearray(iso.disc([record(b"A.;1", FIRST, SECTOR)]) + b"A" * SECTOR)
    data[: 16 * SECTOR] = random.Random(1).randbytes(16 * SECTOR)
    data[:32] = b"\x33\xed" + b"\x90" * 30
    path = _write(tmp_path / "cd.iso", bytes(data))
    assert _extract(path, "/A") == b"A" * SECTOR


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "cd.iso", iso.disc([]))
    monkeypatch.setitem(sys.modules, "pycdlib", None)
    with pytest.raises(cowcloop.UnsupportedError, match="install that Python package"):
        iso9660.pieces(str(path), "/A")


def test_the_library_is_loaded_for_discs_only(tmp_path: Path) -> None:
    image = _write(tmp_path / "image", cloop.build(PLAIN, BLOCK))
    disc = _write(tmp_path / "cd.iso", iso.disc([]))
    script = (
        "import sys; from cowcloop.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('pycdlib' in sys.modules, file=sys.stderr)\n"
    )
    for file, loaded in ((image, "False"), (disc, "True")):
        done = run(sys.executable, "-c", script, "info", file)
        assert done.stderr.decode().splitlines()[-1] == loaded


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
                    iso9660.contents(str(path))
                else:
                    iso9660.pieces(str(path), inside)
                answers.add("answer")
            except cowcloop.CowcloopError as error:
                answers.add(type(error).__name__)
                said.append(str(error))
    assert [line for line in said if not line.startswith(str(path)) or "\n" in line] == []
    assert {"answer", "NotFoundError", "ImageFormatError"} <= answers
