"""What a file holds: CloopImage and cow_info."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import cowcloop
import pytest
from cowcloop import _core
from support import cloop, cowfile, programs

BLOCK = 4096


@pytest.fixture(scope="module")
def plain() -> bytes:
    return cloop.sample(20 * BLOCK, BLOCK)


def test_info_of_an_image(tmp_path: Path, plain: bytes) -> None:
    path = tmp_path / "image"
    names = ("zlib", "none", "xz", "lz4", "lzo")
    path.write_bytes(
        cloop.build(
            plain,
            BLOCK,
            signature="V4.0",
            codec=lambda number: names[number % 5],
            layout="footer",
            gap=512,
        )
    )
    info = cowcloop.CloopImage(path).info()
    assert dataclasses.is_dataclass(info)
    assert info.path == os.fspath(path)
    assert (info.format, info.version, info.layout) == ("cloop", "V4.0", "footer")
    assert (info.block_size, info.blocks, info.size) == (BLOCK, 20, 20 * BLOCK)
    assert info.file_size == path.stat().st_size
    assert info.index_bytes == 21 * 8
    assert info.codecs == dict.fromkeys(names, 4)
    assert info.compressed_bytes == info.file_size - 136 - 21 * 8 - 512
    assert info.ratio == pytest.approx(info.compressed_bytes / info.size)


def test_info_counts_zero_and_shared_blocks(tmp_path: Path) -> None:
    path = tmp_path / "image"
    block = os.urandom(BLOCK)
    path.write_bytes(cloop.build_uzip(block + bytes(2 * BLOCK) + block + block, "z", BLOCK))
    info = cowcloop.CloopImage(path).info()
    assert (info.format, info.version) == ("uzip", "z4.0")
    assert (info.zero_blocks, info.shared_blocks, info.codecs) == (2, 2, {"zstd": 3})


def test_a_raw_file_is_no_cloop_image(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(4096))
    with pytest.raises(cowcloop.ImageFormatError, match="not a cloop or uzip image") as caught:
        cowcloop.CloopImage(path).info()
    assert isinstance(caught.value, ValueError)
    assert _core.image_info(path)["type"] == "raw"
    assert _core.sniff(path) == "raw"


def test_verify_finds_what_is_bad(tmp_path: Path, plain: bytes) -> None:
    path = tmp_path / "image"
    image = bytearray(cloop.build(plain, BLOCK))
    path.write_bytes(image)
    good = cowcloop.CloopImage(path).verify()
    assert good.ok
    assert (good.blocks, good.bad_blocks, good.bad) == (20, 0, ())

    at = int.from_bytes(image[136 + 8 * 5 : 136 + 8 * 6], "big")
    end = int.from_bytes(image[136 + 8 * 6 : 136 + 8 * 7], "big")
    image[end - 1] ^= 1
    path.write_bytes(image)
    report = cowcloop.CloopImage(path).verify(threads=2)
    assert not report.ok
    (bad,) = report.bad
    assert (bad.block, bad.offset, bad.length) == (5, at, end - at)
    assert bad.reason
    with cowcloop.open(path) as disk:
        with pytest.raises(cowcloop.DamagedError) as caught:
            disk.pread(BLOCK, 5 * BLOCK)
        assert isinstance(caught.value, OSError)
        assert disk.pread(BLOCK, 4 * BLOCK) == plain[4 * BLOCK : 5 * BLOCK]


@pytest.mark.parametrize("layout", ["64-little", "64-big", "32-little", "32-big"])
def test_info_of_a_cowfile(tmp_path: Path, plain: bytes, layout: str) -> None:
    path = tmp_path / "cow"
    path.write_bytes(cowfile.build(plain, {3: b"x" * 1024, 9: b"y" * 1024}, layout=layout))
    info = cowcloop.cow_info(path)
    word, order = layout.split("-")
    assert (info.state, info.version) == ("clean", 1)
    assert (info.word_size, info.byte_order) == (int(word), order)
    assert (info.blocks_used, info.blocks_total) == (2, len(plain) // 1024)
    assert info.base_size == info.size == len(plain)
    assert int(info.fingerprint, 16) == cowfile.fingerprint(plain) & 0xFFFFFFFF
    assert (info.mapunit, info.bitmap_bytes, info.data_offset) == (1024, 1024, 4096)
    assert _core.sniff(path) == "cowfile"


def test_info_of_a_cowfile_in_use(tmp_path: Path, plain: bytes) -> None:
    image, cow = tmp_path / "image", tmp_path / "cow"
    image.write_bytes(plain)
    with cowcloop.open(image, cow) as disk:
        disk.pwrite(b"x", 0)
        disk.flush()
        assert cowcloop.cow_info(cow).state == "in use or crashed"
    assert cowcloop.cow_info(cow).state == "clean"


def test_objects_say_what_they_are_of(tmp_path: Path) -> None:
    assert repr(cowcloop.CloopImage("a/b.img")) == "cowcloop.CloopImage('a/b.img')"
    with pytest.raises(FileNotFoundError, match=r"nothing\.img"):
        cowcloop.CloopImage(tmp_path / "nothing.img").info()
    with pytest.raises(FileNotFoundError, match=r"nothing\.cow"):
        cowcloop.cow_info(tmp_path / "nothing.cow")


def test_names_are_those_that_were_given(tmp_path: Path, plain: bytes) -> None:
    """Also where they are no text: they can be opened again."""
    image, cow = (os.path.join(os.fsencode(tmp_path), name) for name in (b"i\xff", b"c\xff"))
    Path(os.fsdecode(image)).write_bytes(cloop.build(plain, BLOCK))
    with cowcloop.open(os.fsdecode(image), os.fsdecode(cow)) as disk:
        status = disk.status()
    assert os.fsencode(status.image) == image
    assert os.fsencode(status.cowfiles[0].path) == cow
    assert os.fsencode(cowcloop.CloopImage(os.fsdecode(image)).info().path) == image
    assert os.fsencode(cowcloop.cow_info(os.fsdecode(cow)).path) == cow
    for name in map(os.fsdecode, (image, cow)):
        document = json.loads(programs.cowcloop("info", "--json", name).stdout)
        assert document["path"] == name
        assert document.get("image", name) == name
        assert os.fsencode(name) in programs.cowcloop("info", name).stdout


class _BytesPath:
    """What a program that works with the system's own names may pass."""

    def __init__(self, path: bytes) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return self.path


def test_names_may_be_bytes(tmp_path: Path, plain: bytes) -> None:
    image, cow = os.fsencode(tmp_path) + b"/i\xff", os.fsencode(tmp_path) + b"/c\xff"
    with open(image, "wb") as file:
        file.write(cloop.build(plain, BLOCK))
    for kind in (bytes, _BytesPath):
        assert cowcloop.CloopImage(kind(image)).info().size == len(plain)
        with cowcloop.open(kind(image), kind(cow)) as disk:
            assert disk.name == os.fsdecode(image)
        assert cowcloop.cow_info(kind(cow)).path == os.fsdecode(cow)
        with cowcloop.serve(kind(image), kind(cow)) as server:
            assert server.status()["image"] == os.fsdecode(image)
