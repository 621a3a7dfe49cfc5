"""create: what it writes, which programs read it, and that it is the same every time."""

from __future__ import annotations

import hashlib
import json
import struct
import time
import zlib
from pathlib import Path

import pytest
from support import cloop, images, users
from support.interrupted import stopped_half_way
from support.programs import (
    cowcloop,
    cowcloop_path,
    one_line,
    peak_memory,
    program,
    refused,
    run,
)

#: The bytes that qemu's probe looks for.
V2_PROBE = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"

BLOCK = 65536
PLAIN = cloop.sample(30 * BLOCK - 777, BLOCK, 12)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.write_bytes(PLAIN)
    return path


def _read_by_all(image: Path, want: bytes, tmp_path: Path) -> None:
    out = tmp_path / "read"
    cowcloop("extract", image, out)
    assert out.read_bytes() == want
    for name, found in images.read_by_others(image, tmp_path).items():
        assert found == want, name
    cowcloop("verify", image)


@pytest.mark.parametrize("block_size", ["512", "4K", "64K", "128K"])
def test_everybody_reads_it(raw: Path, tmp_path: Path, block_size: str) -> None:
    out = tmp_path / "i.img"
    size = int(block_size[:-1]) * 1024 if block_size.endswith("K") else int(block_size)
    plain = PLAIN[: size * 200 - 77]  # Debian's tool syncs after every block
    raw.write_bytes(plain)
    cowcloop("create", "--block-size", block_size, raw, out)
    image = out.read_bytes()
    assert image.startswith(V2_PROBE)
    assert len(image) % 512 == 0
    # qemu knows it by itself, and does not copy the compressed bytes.
    qemu = program("qemu-img", "qemu-utils")
    shown = json.loads(run(qemu, "info", "--output=json", out).stdout)
    assert (shown["format"], shown["virtual-size"]) == ("cloop", -(-len(plain) // size) * size)
    run(qemu, "convert", "-O", "raw", out, tmp_path / "unprompted")
    assert (tmp_path / "unprompted").read_bytes() == cloop.padded(plain, size)
    assert struct.unpack_from(">I", image, 128)[0] == size
    _read_by_all(out, cloop.padded(plain, size), tmp_path)


def test_a_filesystem_survives(ext2: Path, tmp_path: Path) -> None:
    out = tmp_path / "i.img"
    cowcloop("create", ext2, out)
    assert struct.unpack_from(">I", out.read_bytes(), 128)[0] == 65536
    _read_by_all(out, ext2.read_bytes(), tmp_path)


def test_no_block_is_stored_as_nothing(raw: Path, tmp_path: Path) -> None:
    """The kernel driver, qemu and Debian's tool fail on an empty block."""
    out = tmp_path / "i.img"
    raw.write_bytes(b"\0" * (20 * BLOCK))
    cowcloop("create", raw, out)
    image = out.read_bytes()
    offsets = struct.unpack_from(">21Q", image, 136)
    for first, last in zip(offsets, offsets[1:]):
        assert zlib.decompress(image[first:last]) == b"\0" * BLOCK
    assert offsets[0] == 136 + 8 * 21
    assert 0 <= len(image) - offsets[-1] < 512
    assert not any(image[offsets[-1] :])


@pytest.mark.parametrize("options", [[], ["--level", "1"], ["--level", "best"]], ids=" ".join)
def test_the_same_bytes_every_time(raw: Path, tmp_path: Path, options: list[str]) -> None:
    found = set()
    for threads in ("1", "2", "5"):
        out = tmp_path / f"i{threads}.img"
        cowcloop("create", *options, "--threads", threads, raw, out)
        found.add(hashlib.sha256(out.read_bytes()).digest())
    piped = cowcloop("create", *options, "-", "-", stdin=PLAIN).stdout
    found.add(hashlib.sha256(piped).digest())
    assert len(found) == 1


def test_levels(raw: Path, tmp_path: Path) -> None:
    sizes = {}
    for level in ("1", "6", "9", "best"):
        out = tmp_path / f"{level}.img"
        cowcloop("create", "--level", level, raw, out)
        cowcloop("verify", out)
        sizes[level] = out.stat().st_size
    assert sizes["1"] >= sizes["6"] >= sizes["9"] >= sizes["best"]
    assert sizes["1"] > sizes["best"]


def _end_of_data(image: Path) -> int:
    data = image.read_bytes()
    blocks = struct.unpack_from(">I", data, 132)[0]
    end: int = struct.unpack_from(">Q", data, 136 + 8 * blocks)[0]
    return end


def test_no_larger_than_debians(ext2: Path, tmp_path: Path) -> None:
    out, theirs = tmp_path / "i.img", tmp_path / "theirs"
    images.compress(ext2, theirs)
    cowcloop("create", ext2, out)
    assert _end_of_data(out) <= _end_of_data(theirs)
    # Their best takes seconds a megabyte.
    part = tmp_path / "part"
    part.write_bytes(ext2.read_bytes()[22 * BLOCK : 38 * BLOCK])
    images.compress(part, theirs, level=-2)
    cowcloop("create", "--level", "best", part, out)
    assert _end_of_data(out) < _end_of_data(theirs)


@pytest.mark.parametrize("footer", [False, True])
@pytest.mark.parametrize("codec", ["zlib", "none", "xz", "lz4", "lzo"])
def test_version_4(raw: Path, tmp_path: Path, codec: str, footer: bool) -> None:
    out = tmp_path / "i.img"
    options = ["--format", "v4", "--codec", codec, *(["--footer"] if footer else [])]
    cowcloop("create", *options, "--block-size", "16K", raw, out)
    assert cowcloop("extract", out, "-").stdout == cloop.padded(PLAIN, 16384)
    if codec == "zlib" and not footer:
        _read_by_all(out, cloop.padded(PLAIN, 16384), tmp_path)
    cowcloop("verify", out)
    info = json.loads(cowcloop("info", "--json", out).stdout)
    assert info["version"] == "V4.0"
    assert info["layout"] == ("footer" if footer else "header")
    assert info["codecs"].get(codec, 0) > 0
    image = out.read_bytes()
    count = -(-len(PLAIN) // 16384)
    at = len(image) - 136 - 8 * (count + 1) if footer else 136
    entries = struct.unpack_from(f">{count + 1}Q", image, at)
    assert {entry >> 60 for entry in entries[:-1]} <= {0, 1, cloop.FLAGS[codec]}
    if footer:
        assert image[-136:].startswith(b"#!/bin/sh\n#V4.0")
        assert entries[0] & (1 << 60) - 1 > 0, "the driver cannot read a block at offset 0"


def test_footer_from_a_pipe_in_one_pass(tmp_path: Path) -> None:
    options = ["--format", "v4", "--footer", "--codec", "zlib"]
    image = cowcloop("create", *options, "-", "-", stdin=PLAIN).stdout
    (tmp_path / "i").write_bytes(image)
    assert cowcloop("extract", tmp_path / "i", "-").stdout == cloop.padded(PLAIN, BLOCK)


@pytest.mark.parametrize(
    "options",
    [
        ["--codec", "xz"],
        ["--format", "v2", "--codec", "lz4"],
        ["--block-size", "1000"],
        ["--block-size", "0"],
        ["--block-size", "128M"],
        ["--level", "10"],
        ["--level", "0"],
        ["--format", "v3"],
        ["--codec", "rar"],
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense(raw: Path, tmp_path: Path, options: list[str]) -> None:
    done = cowcloop("create", *options, raw, tmp_path / "out", expect=None)
    assert done.returncode in (1, 2)
    assert done.stderr
    assert list(tmp_path.iterdir()) == [raw]


def test_a_directory_becomes_a_filesystem(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    images.tree(folder)
    out, device = tmp_path / "i.img", tmp_path / "device"
    cowcloop("create", folder, out)
    cowcloop("extract", out, device)
    run(program("e2fsck", "e2fsprogs"), "-fn", device)
    debugfs = program("debugfs", "e2fsprogs")
    copy = tmp_path / "copy"
    copy.mkdir()
    run(debugfs, "-R", f"rdump / {copy}", device)
    for path in folder.rglob("*"):
        other = copy / path.relative_to(folder)
        if path.is_symlink():
            assert other.readlink() == path.readlink()
        elif path.is_file():
            assert other.read_bytes() == path.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "cowcloop" in path.name] == []


def test_a_directory_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    folder = tmp_path / "tree"
    images.tree(folder)
    for name in ("a", "b"):
        cowcloop("create", "--level", "1", folder, tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).digest())
        time.sleep(1)  # the unit in which ext2 has its times
    assert len(digests) == 1


def test_an_empty_directory(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    cowcloop("create", folder, tmp_path / "i.img")
    cowcloop("extract", tmp_path / "i.img", tmp_path / "device")
    run(program("e2fsck", "e2fsprogs"), "-fn", tmp_path / "device")


def test_an_empty_source(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"")
    refused("create", tmp_path / "raw", tmp_path / "out", says="raw")
    assert not (tmp_path / "out").exists()


def test_a_missing_mke2fs_is_named_with_its_package(tmp_path: Path, root: None) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    hidden = 'mount --bind /dev/null "$0" && exec "$@"'
    command: list[str | Path] = [cowcloop_path(), "create", folder, tmp_path / "i"]
    mke2fs = Path(program("mke2fs", "e2fsprogs")).resolve()
    done = run(*users.own_mounts(), "/bin/sh", "-c", hidden, mke2fs, *command, expect=1)
    line = one_line(done.stderr.decode())
    assert "mke2fs" in line
    assert "e2fsprogs" in line
    assert list(tmp_path.iterdir()) == [folder]


def test_out_rules(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"old")
    cowcloop("create", raw, out)
    first = out.read_bytes()
    assert cowcloop("extract", out, "-").stdout == cloop.padded(PLAIN, BLOCK)
    refused("create", raw, raw, says="raw")
    assert raw.read_bytes() == PLAIN
    refused("create", tmp_path / "none", out, says="none")
    assert out.read_bytes() == first
    refused("create", raw, tmp_path / "no" / "out", says="out")
    folder = tmp_path / "tree"
    images.tree(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw", "tree"]


def test_a_block_device_as_source(raw: Path, tmp_path: Path, loop: None) -> None:
    losetup = program("losetup", "mount")
    raw.write_bytes(PLAIN[: 20 * BLOCK])
    device = run(losetup, "--find", "--show", "--read-only", raw).stdout.decode().strip()
    try:
        cowcloop("create", device, tmp_path / "i")
    finally:
        run(losetup, "--detach", device)
    assert cowcloop("extract", tmp_path / "i", "-").stdout == PLAIN[: 20 * BLOCK]


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    big = tmp_path / "raw"
    with big.open("wb") as file:
        for _ in range(8):
            file.write(PLAIN * 16)
    used, _ = peak_memory("create", "--level", "1", big, tmp_path / "i")
    assert used < 160 << 20, f"{used >> 20} MiB for {big.stat().st_size >> 20} MiB"


def test_interrupted_leaves_nothing(tmp_path: Path) -> None:
    big = tmp_path / "raw"
    with big.open("wb") as file:
        file.truncate(4 << 30)
        file.write(PLAIN)
    out = tmp_path / "out"
    assert stopped_half_way("create", "--level", "best", big, out, folder=tmp_path) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_debian_makes_the_same_device(ext2: Path, tmp_path: Path) -> None:
    """An image of theirs, read and written again by us, is read by them."""
    theirs, plain, ours, again = (tmp_path / name for name in ("t", "p", "o", "a"))
    images.compress(ext2, theirs, block_size=32768, level=1)
    cowcloop("extract", theirs, plain)
    cowcloop("create", "--block-size", "32K", plain, ours)
    images.decompress(ours, again)
    assert again.read_bytes() == ext2.read_bytes()
