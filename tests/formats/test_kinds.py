"""Every kind of image, through every command that reads one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import images, nbdclient
from support.kinds import KINDS, Kind
from support.programs import cowcloop, program, run
from support.server import serving


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    assert isinstance(request.param, Kind)
    return request.param


@pytest.fixture
def made(kind: Kind, tmp_path: Path) -> tuple[Path, bytes]:
    """The image as a file, and the device that it holds."""
    image, device = kind.make()
    path = tmp_path / "image"
    path.write_bytes(image)
    return path, device


def test_extract_info_and_verify(kind: Kind, made: tuple[Path, bytes], tmp_path: Path) -> None:
    path, device = made
    before = path.read_bytes()
    out = tmp_path / "out"
    cowcloop("extract", path, out)
    assert out.read_bytes() == device

    info = json.loads(cowcloop("info", "--json", path).stdout)
    assert info["type"] == "cloop"
    assert info["file_size"] == path.stat().st_size
    assert info["size"] == len(device)
    assert {key: info[key] for key in kind.info if key != "codecs"} == {
        key: value for key, value in kind.info.items() if key != "codecs"
    }
    if "codecs" in kind.info:
        assert {name: n for name, n in info["codecs"].items() if n} == kind.info["codecs"]

    report = json.loads(cowcloop("verify", "--json", path).stdout)
    assert report["bad"] == []
    assert report["blocks"] == info["blocks"]
    # The same key for the same thing, whatever the command.
    drawn = json.loads(cowcloop("map", "--json", path).stdout)
    for document in (info, report, drawn):
        assert (document["image"], document["size"]) == (str(path), len(device))
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.qemu], ids=str)
def test_other_programs_read_the_same(kind: Kind, made: tuple[Path, bytes], tmp_path: Path) -> None:
    path, device = made
    for name, found in images.read_by_others(path, tmp_path, debian=kind.debian).items():
        assert found == device, name


def test_served(kind: Kind, made: tuple[Path, bytes], tmp_path: Path) -> None:
    path, device = made
    copy = tmp_path / "copy"
    with serving(path) as server:
        run(program("nbdcopy", "libnbd-bin"), server.uri, copy)
        handle = nbdclient.connect(server.uri, extents=True)
        assert handle.is_read_only()
        # Single bytes and ranges across block boundaries, in no order.
        block = kind.info["block_size"]
        for at in range(len(device) - 1, -1, -max(1, len(device) // 37)):
            length = min(len(device) - at, block + 7)
            assert handle.pread(length, at) == device[at : at + length]
        at = 0
        for length, flags in nbdclient.extents(handle, len(device)):
            if flags:
                assert not any(device[at : at + length]), "said to be zeros"
            at += length
        assert at == len(device)
        handle.shutdown()
    assert copy.read_bytes() == device


def test_zero_blocks_are_known_without_being_read(tmp_path: Path) -> None:
    """Blocks whose compressed bytes are those of a block of zeros, and those stored as nothing."""
    from support import cloop

    block = 65536
    plain = cloop.sample(3 * block, block) + b"\0" * (20 * block) + b"end".ljust(block, b"\0")
    for name, image in [
        ("v2", cloop.build(plain, block)),
        ("v4-lz4", cloop.build(plain, block, signature="V4.0", codec="lz4")),
        ("uzip", cloop.build_uzip(plain, "v", block)),
    ]:
        path = tmp_path / name
        path.write_bytes(image)
        with serving(path) as server:
            handle = nbdclient.connect(server.uri, extents=True)
            found = nbdclient.extents(handle, len(plain))
            handle.shutdown()
        zeros = sum(length for length, flags in found if flags)
        assert zeros >= 20 * block, (name, found)
        out = tmp_path / f"{name}.out"
        cowcloop("extract", path, out)
        assert out.read_bytes() == plain
        assert out.stat().st_blocks * 512 <= len(plain) - 20 * block + 65536, "holes stay holes"


def test_a_raw_file_is_an_image_too(ext2: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cowcloop("extract", ext2, out)
    assert out.read_bytes() == ext2.read_bytes()
    info = json.loads(cowcloop("info", "--json", ext2).stdout)
    assert (info["type"], info["size"]) == ("raw", ext2.stat().st_size)
    assert info["image"] == str(ext2)
    with serving(ext2) as server:
        handle = nbdclient.connect(server.uri)
        assert nbdclient.read_all(handle) == ext2.read_bytes()
        handle.shutdown()


def test_the_image_of_a_filesystem(chicken: Path, ext2: Path, tmp_path: Path) -> None:
    """The main job: every program reads the same from an image of Debian's compressor."""
    plain, ours = ext2.read_bytes(), tmp_path / "ours"
    cowcloop("extract", chicken, ours)
    assert ours.read_bytes() == plain
    for name, found in images.read_by_others(chicken, tmp_path).items():
        assert found == plain, name
    assert cowcloop("extract", chicken, "-").stdout == plain
    run(program("e2fsck", "e2fsprogs"), "-fn", ours)
    with serving(chicken) as server:
        shown = json.loads(
            run(program("qemu-img", "qemu-utils"), "info", "--output=json", server.uri).stdout
        )
        assert shown["virtual-size"] == len(plain)
        size = run(program("nbdinfo", "libnbd-bin"), "--size", server.uri).stdout
        assert int(size) == len(plain)
        run(program("qemu-img", "qemu-utils"), "compare", "-f", "raw", server.uri, ext2)
