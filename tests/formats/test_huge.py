"""Images past 2 TiB, blocks of 64 MiB, and the memory that they take."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from pathlib import Path

import pytest
from support import cloop, cowfile, nbdclient
from support.programs import cowcloop, peak_memory
from support.server import listed, serving

MIB = 1 << 20
TIB = 1 << 40


def sparse_image(path: Path, signature: str, size: int, block_size: int, data: set[int]) -> None:
    """An image of ``size`` bytes with data in a few blocks, the others stored as nothing."""
    blocks = size // block_size
    at = cloop.HEADER_BYTES + 8 * (blocks + 1)
    entries = []
    body = b""
    for number in range(blocks):
        entries.append(at + len(body))
        if number in data:
            body += zlib.compress((b"block %d " % number).ljust(block_size, b"\1"), 1)
    entries.append(at + len(body))
    path.write_bytes(cloop.header(signature, block_size, blocks) + cloop.index(entries) + body)


@pytest.mark.parametrize("signature", ["V2.0", "V4.0", "v3.0"])
def test_past_two_tebibytes(tmp_path: Path, signature: str) -> None:
    block = 8 * MIB
    size = 2 * TIB + 3 * block
    last = size // block - 1
    beyond = 2 * TIB // block
    path = tmp_path / "huge"
    sparse_image(path, signature, size, block, {0, beyond, last})
    info = json.loads(cowcloop("info", "--json", path).stdout)
    assert info["size"] == size
    cow = tmp_path / "cow"
    for day in range(2):
        with serving(path, cow) as server:
            handle = nbdclient.connect(server.uri, extents=True)
            assert handle.get_size() == size
            for number in (0, beyond, last):
                text = b"block %d " % number
                assert handle.pread(len(text), number * block) == text
            assert handle.pread(MIB, TIB) == b"\0" * MIB
            far = 2 * TIB + block + 12345
            if day == 0:
                handle.pwrite(b"far out", far)
            assert handle.pread(9, far - 1) == b"\0far out\0"
            extents = nbdclient.extents(handle, size)
            assert sum(length for length, flags in extents if not flags) <= 3 * block + 65536
            handle.shutdown()
    head = cowfile.parse(cow, data=False).head
    assert head.rdoblocks == size // 1024
    assert cow.stat().st_blocks * 512 < 4 * MIB, "holes where nothing was written"


def test_a_huge_raw_base_is_attached_at_once(tmp_path: Path) -> None:
    """The fingerprint of a base of holes is found without reading them."""
    base = tmp_path / "base"
    with base.open("wb") as file:
        file.truncate(4 * TIB)
        file.seek(3 * TIB)
        file.write(b"\x07")
    cow = tmp_path / "cow"
    with serving(base, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"x", TIB)
        assert handle.pread(1, 3 * TIB) == b"\x07"
        handle.shutdown()
    assert cowfile.parse(cow, data=False).head.fingerprint == 7


def test_blocks_of_64_mebibytes_in_bounded_memory(tmp_path: Path) -> None:
    block = 64 * MIB
    rng = random.Random(5)
    digest = hashlib.sha256()
    streams = []
    for number in range(5):
        raw = (rng.randbytes(4096) + b"%d" % number).ljust(8192, b"\1") * (block // 8192)
        digest.update(raw)
        streams.append(zlib.compress(raw, 1))
    path, out = tmp_path / "big", tmp_path / "out"
    path.write_bytes(cloop.assemble("V2.0", block, streams))
    used = {
        "verify": peak_memory("verify", path)[0],
        "extract": peak_memory("extract", path, out)[0],
    }
    for command, peak in used.items():
        assert peak < 700 * MIB, f"{command} took {peak >> 20} MiB"
    with out.open("rb") as file:
        found = hashlib.sha256()
        while piece := file.read(16 * MIB):
            found.update(piece)
    assert found.digest() == digest.digest()


def test_blocks_of_64_mebibytes_are_served_in_bounded_memory(tmp_path: Path) -> None:
    """With the smallest cache, from several connections; and what is cached is not decoded anew."""
    block = 64 * MIB
    device = [(b"%d" % number).ljust(8192, b"\1") for number in range(6)]
    path = tmp_path / "big"
    streams = [zlib.compress(raw * (block // 8192), 1) for raw in device]
    path.write_bytes(cloop.assemble("V2.0", block, streams))
    with serving("--cache", "64K", path) as server:
        handles = [nbdclient.connect(server.uri) for _ in range(3)]
        rng = random.Random(9)
        for _ in range(40):
            number, at = rng.randrange(6), rng.randrange(0, 4 * MIB, 8192)
            handle = rng.choice(handles)
            assert handle.pread(8192, number * block + at) == device[number]
        before = listed()[0]["cache"]
        for at in range(0, 32 * MIB, 8192 * 101):
            assert handles[0].pread(8192, 2 * block + at) == device[2]
        after = listed()[0]["cache"]
        status = Path(f"/proc/{server.nbdkit_pid()}/status").read_text()
        for handle in handles:
            handle.shutdown()
    assert after["misses"] - before["misses"] <= 2
    assert after["bytes"] <= after["limit"] <= 130 * MIB
    peak = int(next(line.split()[1] for line in status.splitlines() if "VmHWM" in line)) >> 10
    assert peak < 300, f"{peak} MiB"


def test_a_cache_larger_than_any_memory(tmp_path: Path) -> None:
    """It takes what the image needs, and no more is made ready for it."""
    data = random.Random(4).randbytes(MIB)
    path = tmp_path / "small"
    path.write_bytes(cloop.build(data, 65536, level=1))
    with serving("--cache", "1E", path, quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        assert handle.pread(MIB, 0) == data
        handle.shutdown()
        assert listed()[0]["cache"]["limit"] < 4 * MIB


def test_memory_of_extract_does_not_grow_with_the_image(tmp_path: Path) -> None:
    block = 65536
    stream = zlib.compress(random.Random(1).randbytes(block // 2) * 2, 1)
    path = tmp_path / "i"
    path.write_bytes(cloop.assemble("V2.0", block, [stream] * 4000))
    used, _ = peak_memory("extract", path, tmp_path / "out")
    assert used < 160 * MIB, f"{used >> 20} MiB for a device of 250 MiB"


@pytest.mark.parametrize(("signature", "each"), [("V2.0", 8), ("v3.0", 16)])
def test_an_index_of_sixteen_million_blocks(tmp_path: Path, signature: str, each: int) -> None:
    """Eight bytes a block in memory, up to sixteen where blocks are shared, and little beside."""
    blocks = 16 << 20
    path = tmp_path / "i"
    at = cloop.HEADER_BYTES + 8 * (blocks + 1)
    stream = zlib.compress(b"\1" * 65536)
    with path.open("wb") as file:
        file.write(cloop.header(signature, 65536, blocks))
        file.write(struct.pack(">Q", at))
        piece = struct.pack(">Q", at + len(stream)) * (1 << 20)
        for _ in range(16):
            file.write(piece)
        file.write(stream)
    idle, _ = peak_memory("--version")
    used, _ = peak_memory("info", path)
    assert used - idle < each * blocks + 8 * MIB, f"{(used - idle) >> 20} MiB"
