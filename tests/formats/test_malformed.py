"""Images that lie: a clear line or an I/O error, never a crash and never much memory.

The cases of qemu's iotest 075 are here, and what the format page says must never be trusted.
"""

from __future__ import annotations

import functools
import json
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.block
import pytest
import zstandard
from support import cloop, lzo, nbdclient
from support.liar import liar
from support.programs import cowcloop, one_line, peak_memory, refused
from support.server import serving

MIB = 1 << 20
BLOCK = 4096
COUNT = 13
PLAIN = cloop.sample(BLOCK * COUNT, BLOCK)
GOOD = cloop.build(PLAIN, BLOCK)


def at(image: bytes, offset: int, form: str, value: int) -> bytes:
    """``image`` with one big-endian number replaced."""
    changed = bytearray(image)
    struct.pack_into(form, changed, offset, value)
    return bytes(changed)


def entry(image: bytes, number: int) -> int:
    value: int = struct.unpack_from(">Q", image, 136 + 8 * number)[0]
    return value


HEADERS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "block size not a multiple of 512": (at(GOOD, 128, ">I", 1000), ("block_size", "1000")),
    "block size 513": (at(GOOD, 128, ">I", 513), ("block_size", "513")),
    "block size zero": (at(GOOD, 128, ">I", 0), ("block_size", "0")),
    "block size huge": (at(GOOD, 128, ">I", 0xFFFFFE00), ("block_size", "4294966784")),
    "block size above the limit": (at(GOOD, 128, ">I", 65 * MIB), ("block_size",)),
    "offset table overflows": (at(GOOD, 132, ">I", 0xFFFFFFFF), ("num_blocks", "4294967295")),
    "too many offsets": (at(GOOD, 132, ">I", 0x04000001), ("num_blocks", "67108865")),
    "more blocks than the file has": (at(GOOD, 132, ">I", 40000), ("num_blocks", "40000")),
    "offsets fall": (at(GOOD, 136 + 8 * 5, ">Q", entry(GOOD, 3)), ("offset", "5")),
    "an offset inside the index": (at(GOOD, 136, ">Q", 136), ("offset", "136")),
    "an offset of zero": (at(GOOD, 136, ">Q", 0), ("offset",)),
    "an offset past the end": (at(GOOD, 136 + 8 * 7, ">Q", 1 << 40), ("offset",)),
    "an offset with its top bits set": (at(GOOD, 136 + 8 * 7, ">Q", (1 << 64) - 1), ("offset",)),
    "an end past the end": (at(GOOD, 136 + 8 * COUNT, ">Q", len(GOOD) + 1), ("offset",)),
    "cut in the data": (GOOD[:-3000], ("offset",)),
    "cut in the index": (GOOD[:200], ("num_blocks",)),
    "cut in the header": (GOOD[:131], ()),
    "only the preamble": (GOOD[:128], ()),
    "only the signature": (GOOD[:15], ()),
    "version 0.68": (cloop.preamble("V0.68")[:11] + b"V0.6" + GOOD[15:], ("V0.6",)),
    "version 1.0": (GOOD[:11] + b"V1.0" + GOOD[15:], ("V1.0",)),
    "version 9.9": (GOOD[:11] + b"V9.9" + GOOD[15:], ("V9.9",)),
    "unknown letter": (GOOD[:11] + b"Q3.0" + GOOD[15:], ("Q3.0",)),
    "unknown codec": (at(GOOD[:11] + b"V4.0" + GOOD[15:], 136 + 16, ">Q", 7 << 60 | entry(GOOD, 2)),
                      ("7",)),
    "a compressed block of 100 MiB": (
        cloop.header("V2.0", 512, 1) + cloop.index([152, 152 + 100 * MIB]) + b"\0" * (100 * MIB),
        ("block 0",),
    ),
    "a back reference in a kind without": (
        at(GOOD[:11] + b"L3.0" + GOOD[15:], 136 + 8 * 5, ">Q", entry(GOOD, 3)),
        ("offset",),
    ),
    "a back reference to the middle of a block": (
        at(GOOD[:11] + b"v3.0" + GOOD[15:], 136 + 8 * 5, ">Q", entry(GOOD, 3) + 1),
        ("offset",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_bad_header_or_index_is_refused_by_name(tmp_path: Path, name: str) -> None:
    image, words = HEADERS[name]
    path, out = tmp_path / "bad.img", tmp_path / "out"
    path.write_bytes(image)
    refused("info", path, says=("bad.img: ", *words))
    refused("verify", path, says="bad.img: ")
    refused("serve", path, says=("bad.img: ", *words))
    refused("extract", path, out, says=("bad.img: ", *words))
    assert list(tmp_path.iterdir()) == [path], "nothing is left half made"


def test_a_lying_header_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bad.img"
    idle, _ = peak_memory("--version")
    for count, size in [(0xFFFFFFFF, 512), (0x10000000, 1 << 20), (40000, 64 * MIB)]:
        path.write_bytes(at(at(GOOD, 132, ">I", count), 128, ">I", size))
        used, _ = peak_memory("info", path, expect=1)
        assert used - idle < 64 * MIB


def test_first_and_last_sector(tmp_path: Path) -> None:
    path = tmp_path / "good.img"
    path.write_bytes(GOOD)
    with serving(path) as server:
        handle = nbdclient.connect(server.uri)
        assert handle.pread(512, 0) == PLAIN[:512]
        assert handle.pread(512, len(PLAIN) - 512) == PLAIN[-512:]
        handle.shutdown()


def _flip(stream: bytes) -> bytes:
    middle = len(stream) // 2
    return stream[:middle] + bytes([stream[middle] ^ 0x5A]) + stream[middle + 1 :]


def _lz4(data: bytes) -> bytes:
    packed: bytes = lz4.block.compress(data, store_size=False)
    return packed


TEXT = PLAIN[:BLOCK]
ANY = ("half", "one byte less", "one byte more", "twice")
COMPRESSED = (*ANY, "cut", "one byte", "noise", "bomb")
#: The bad streams for a block, by codec.
BAD = {
    "zlib": (*COMPRESSED, "flipped", "check sum"),
    "none": ANY,
    "xz": (*COMPRESSED, "flipped", "check sum", "crc64"),
    "lz4": (*COMPRESSED, "before the start", "distance zero"),
    "lzo": (*COMPRESSED, "before the start"),
    "lzma": COMPRESSED,
    "zstd": COMPRESSED,
}


@functools.lru_cache(None)
def _streams(codec: str) -> dict[str, bytes]:
    """Bad streams for a block of one codec."""
    whole = cloop.encode(codec, TEXT)
    bad = {
        "half": cloop.encode(codec, TEXT[: BLOCK // 2]),
        "one byte less": cloop.encode(codec, TEXT[:-1]),
        "one byte more": cloop.encode(codec, TEXT + b"!"),
        "twice": cloop.encode(codec, TEXT * 2),
    }
    if codec != "none":
        bad["cut"] = whole[: len(whole) // 2]
        bad["one byte"] = whole[:1]
        bad["noise"] = b"\xff" * 300
        bad["bomb"] = cloop.encode(codec, b"\0" * MIB)
    if codec in ("zlib", "xz"):
        bad["flipped"] = _flip(whole)
        bad["check sum"] = whole[:-1] + bytes([whole[-1] ^ 1]) if codec == "zlib" else _flip(whole)
    if codec == "xz":
        bad["crc64"] = lzma.compress(TEXT, check=lzma.CHECK_CRC64)[:-4] + b"\0" * 4
    if codec == "lz4":
        bad["before the start"] = b"\x10a\xff\xff" + b"\xf0" + b"\xff" * 15
        bad["distance zero"] = b"\x1fa\0\0" + b"\xff" * 20
    if codec == "lzo":
        bad["before the start"] = lzo.store(TEXT[:100])[:-3] + b"\x21\xff\xff" + lzo.END
    assert set(bad) == set(BAD[codec])
    return bad


V4_CASES = [(codec, name) for codec in cloop.CODECS for name in BAD[codec]]
UZIP_CASES = [(codec, name) for codec in ("xz", "lzma", "zstd") for name in BAD[codec]]


def _holds_one_bad_block(path: Path, image: bytes, bad: int, plain: bytes) -> None:
    """Block ``bad`` cannot be read; all the others can, by every command."""
    path.write_bytes(image)
    done = cowcloop("verify", "--json", path, expect=1)
    report = json.loads(done.stdout)
    assert [item["block"] for item in report["bad"]] == [bad]
    assert (report["image"], report["size"]) == (str(path), len(plain))
    item = report["bad"][0]
    assert item["reason"]
    assert image[item["offset"] : item["offset"] + item["length"]]

    out = path.with_name("out")
    line = refused("extract", path, out)
    assert path.name in line
    assert f"block {bad}" in line
    assert not out.exists()
    assert [each for each in path.parent.iterdir() if each != path] == []

    with serving(path, quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        for number in range(len(plain) // BLOCK):
            start = number * BLOCK
            if number == bad:
                for offset, length in [(start, BLOCK), (start + BLOCK - 1, 1), (start, BLOCK)]:
                    with pytest.raises(nbdclient.module().Error) as caught:
                        handle.pread(length, offset)
                    assert caught.value.errno == "EIO"
            else:
                assert handle.pread(BLOCK, start) == plain[start : start + BLOCK]
        handle.shutdown()


@pytest.mark.parametrize(("codec", "name"), V4_CASES)
def test_a_damaged_block_fails_alone(tmp_path: Path, codec: str, name: str) -> None:
    streams = [cloop.encode("zlib", block) for block in cloop.split(PLAIN, BLOCK)]
    flags = [0] * COUNT
    streams[5] = _streams(codec)[name]
    flags[5] = cloop.FLAGS[codec]
    image = cloop.assemble("V4.0", BLOCK, streams, flags=flags)
    bound = 2 * BLOCK + 1024
    if len(streams[5]) > bound:
        path = tmp_path / "bad.img"
        path.write_bytes(image)
        # More than any block can take: the index may be refused as a whole.
        assert cowcloop("verify", path, expect=1).stderr
        return
    _holds_one_bad_block(tmp_path / "bad.img", image, 5, PLAIN)


@pytest.mark.parametrize(("codec", "name"), UZIP_CASES)
def test_a_damaged_uzip_block_fails_alone(tmp_path: Path, codec: str, name: str) -> None:
    signature = {"xz": "L3.0", "lzma": "L3.0", "zstd": "Z4.0"}[codec]
    streams = [cloop.encode(codec, block) for block in cloop.split(PLAIN, BLOCK)]
    streams[5] = _streams(codec)[name]
    image = cloop.assemble(signature, BLOCK, streams)
    _holds_one_bad_block(tmp_path / "bad.img", image, 5, PLAIN)


def _lzma_claiming(dictionary: int) -> bytes:
    stream = bytearray(cloop.encode("lzma", TEXT))
    struct.pack_into("<I", stream, 1, dictionary)
    return bytes(stream)


def _xz_claiming(dictionary: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": dictionary}]
    return lzma.compress(TEXT, check=lzma.CHECK_CRC32, filters=filters)


def _zstd_claiming(window: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=window, write_content_size=False
    )
    return (
        zstandard.ZstdCompressor(compression_params=parameters).compressobj().compress(TEXT) + b""
    )


def _zeros_deflated(size: int) -> bytes:
    """A small stream that inflates to ``size`` zeros, made without having them in memory."""
    packer = zlib.compressobj(1)
    piece = b"\0" * MIB
    return b"".join(packer.compress(piece) for _ in range(size // MIB)) + packer.flush()


BOMBS: dict[str, Callable[[], bytes]] = {
    "deflate of zeros": lambda: cloop.assemble(
        "V2.0", MIB, [_zeros_deflated(900 * MIB)] + [zlib.compress(b"\1" * MIB)] * 3
    ),
    "xz of zeros": lambda: cloop.assemble(
        "V4.0", 65536, [cloop.encode("xz", b"\0" * (256 * MIB))] * 4, flags=[2] * 4
    ),
    "xz that wants a 1 GiB dictionary": lambda: cloop.assemble(
        "V4.0", 4096, [_xz_claiming(1 << 30)] * 4, flags=[2] * 4
    ),
    "uzip's xz that wants a 1 GiB dictionary": lambda: cloop.assemble(
        "L3.0", 4096, [_xz_claiming(1 << 30)] * 4
    ),
    "lzma that claims a 4 GiB dictionary": lambda: cloop.assemble(
        "L3.0", 4096, [_lzma_claiming(0xFFFFFFFF)] * 4
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_memory(tmp_path: Path, name: str) -> None:
    """What a stream would inflate to, or claims to need, is not given to it."""
    path = tmp_path / "bomb.img"
    path.write_bytes(BOMBS[name]())
    idle, _ = peak_memory("--version")
    used, _ = peak_memory("verify", path, expect=1)
    assert used - idle < 128 * MIB, f"{(used - idle) >> 20} MiB"


def test_no_blocks_at_all(tmp_path: Path) -> None:
    path = tmp_path / "none.img"
    path.write_bytes(at(GOOD, 132, ">I", 0))
    assert json.loads(cowcloop("info", "--json", path).stdout)["size"] == 0
    assert cowcloop("extract", path, "-").stdout == b""


def test_the_largest_usual_dictionary_is_taken(tmp_path: Path) -> None:
    """`xz -9` asks for 64 MiB, however small the block."""
    path = tmp_path / "i.img"
    streams = [
        lzma.compress(block, check=lzma.CHECK_CRC32, preset=9)
        for block in cloop.split(PLAIN, BLOCK)
    ]
    path.write_bytes(cloop.assemble("V4.0", BLOCK, streams, flags=[2] * COUNT))
    assert cowcloop("extract", path, "-").stdout == PLAIN


def test_a_short_last_block_is_filled_with_zeros_and_another_is_not(tmp_path: Path) -> None:
    blocks = [zlib.compress(block) for block in cloop.split(PLAIN, BLOCK)]
    path, out = tmp_path / "i.img", tmp_path / "out"
    path.write_bytes(cloop.assemble("V2.0", BLOCK, [*blocks[:-1], zlib.compress(TEXT[:700])]))
    cowcloop("extract", path, out)
    assert out.read_bytes() == PLAIN[:-BLOCK] + TEXT[:700].ljust(BLOCK, b"\0")
    out.unlink()
    blocks[3] = zlib.compress(TEXT[:700])
    path.write_bytes(cloop.assemble("V2.0", BLOCK, blocks))
    assert "block 3" in refused("extract", path, out)


def test_bytes_after_a_stream_are_ignored(tmp_path: Path) -> None:
    """mkuzip pads; the padding may lie inside the last block's length."""
    path = tmp_path / "i.img"
    for codec, signature in [("zlib", "V2.0"), ("xz", "L3.0"), ("lzma", "L3.0"), ("zstd", "Z4.0")]:
        streams = [cloop.encode(codec, block) for block in cloop.split(PLAIN, BLOCK)]
        streams[-1] += b"\0" * 37
        path.write_bytes(cloop.assemble(signature, BLOCK, streams))
        assert cowcloop("extract", path, "-").stdout == PLAIN


def test_verify_says_where_for_people(tmp_path: Path) -> None:
    streams = [zlib.compress(block) for block in cloop.split(PLAIN, BLOCK)]
    for number in (2, 9):
        streams[number] = _flip(streams[number])
    image = cloop.assemble("V2.0", BLOCK, streams)
    path = tmp_path / "bad.img"
    path.write_bytes(image)
    done = cowcloop("verify", path, expect=1)
    told = done.stdout.decode() + done.stderr.decode()
    for number in (2, 9):
        assert str(entry(image, number)) in told, "the offset in the file"
    assert "bad.img" in told


@pytest.mark.parametrize("length", [0, 1, 511, 1023])
def test_tiny_raw_files_do_not_crash(tmp_path: Path, length: int) -> None:
    path = tmp_path / "tiny"
    path.write_bytes(b"z" * length)
    assert cowcloop("info", path, expect=None).returncode in (0, 1)
    assert cowcloop("extract", path, tmp_path / "out", expect=None).returncode in (0, 1)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.img", tmp_path):
        for command in ("info", "verify", "serve"):
            refused(command, path, says=path.name)
        refused("extract", path, "-", says=path.name)


def test_all_bad_blocks_are_counted(tmp_path: Path) -> None:
    """Of many the first are listed."""
    blocks = 100_010
    path = tmp_path / "bad.img"
    path.write_bytes(cloop.assemble("V2.0", 512, [b"x"] * blocks))
    done = cowcloop("verify", path, expect=1)
    assert len(done.stdout.splitlines()) == 100_000
    says = f"{blocks} of {blocks} blocks are bad; the first 100000 are listed"
    one_line(done.stderr.decode(), says)
    assert str(blocks) in cowcloop("map", "--check", path).stderr.decode()
    with liar(path.read_bytes()) as server:
        refused("pull", server.url, tmp_path / "out", says=f"{blocks} of {blocks} blocks are bad")
