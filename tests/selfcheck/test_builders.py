"""The builders themselves, held against Debian's programs before anything relies on them."""

from __future__ import annotations

import hashlib
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.block
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from support import cloop, cowfile, images, lzo
from support.programs import program, run


@pytest.mark.parametrize("block_size", [512, 4096, 65536, 1 << 20])
def test_others_read_a_built_v2_image(tmp_path: Path, block_size: int) -> None:
    plain = cloop.sample(12 * block_size - 700 % block_size, block_size)
    image = tmp_path / "i"
    want = cloop.padded(plain, block_size)
    image.write_bytes(cloop.build(plain, block_size, padding=100))
    for name, found in images.read_by_others(image, tmp_path).items():
        assert found == want, name
    # Debian's tool wants the first block right after the index; qemu looks.
    image.write_bytes(cloop.build(plain, block_size, gap=48, padding=100))
    assert images.read_by_others(image, tmp_path, debian=False) == {"qemu": want}


def test_a_real_image_has_the_layout_that_the_builder_writes(ext2: Path, tmp_path: Path) -> None:
    """Debian's compressor and the builder agree on everything but the script."""
    plain = ext2.read_bytes()
    built = cloop.build(plain, 65536)
    images.compress(ext2, tmp_path / "real")
    real = (tmp_path / "real").read_bytes()
    assert real[128:136] == built[128:136]
    count = struct.unpack_from(">I", real, 132)[0]
    offsets = struct.unpack_from(f">{count + 1}Q", real, 136)
    for number in range(count):
        stream = real[offsets[number] : offsets[number + 1]]
        assert zlib.decompress(stream) == plain[number * 65536 :][:65536].ljust(65536, b"\0")


def _lzop_reads(block: bytes, plain: bytes, tmp_path: Path) -> None:
    """Debian's lzop reads a block inside its own container."""
    head = struct.pack(">HHHBBIIIIB", 0x1030, 0x2080, 0x0940, 1, 5, 1, 0o644, 0, 0, 0)
    container = b"\x89LZO\0\r\n\x1a\n" + head + struct.pack(">I", zlib.adler32(head))
    container += struct.pack(">III", len(plain), len(block), zlib.adler32(plain))
    container += block + struct.pack(">I", 0)
    path = tmp_path / "block.lzo"
    path.write_bytes(container)
    assert run(program("lzop", "lzop"), "-dc", path).stdout == plain


@pytest.mark.parametrize("seed", range(6))
def test_lzop_reads_built_lzo_blocks(tmp_path: Path, seed: int) -> None:
    kinds = cloop.sample(6 * 65536, 65536, seed)
    plain = kinds[seed * 65536 :][:65536] if seed != 2 else kinds[:40000] + kinds[:25536]
    block = lzo.compress(plain)
    if len(block) < len(plain):
        _lzop_reads(block, plain, tmp_path)
    else:  # lzop itself would have stored it
        assert block.endswith(lzo.END)


def test_lzo_compresses_and_reaches_far_back() -> None:
    near = bytes(range(256)) * 100
    assert len(lzo.compress(near)) < 1000
    far = cloop.sample(65536, 65536, 9)[:30000]
    assert len(lzo.compress(far + far)) < len(lzo.store(far)) + 1000


@pytest.mark.parametrize("codec", [*cloop.CODECS, "lzma", "zstd"])
def test_streams_are_what_the_format_says(codec: str) -> None:
    plain = cloop.sample(16384, 4096)
    stream = cloop.encode(codec, plain)
    back: dict[str, Callable[[bytes], bytes]] = {
        "zlib": zlib.decompress,
        "none": bytes,
        "xz": lambda data: lzma.decompress(data, format=lzma.FORMAT_XZ),
        "lz4": lambda data: lz4.block.decompress(data, uncompressed_size=len(plain)),
        "lzma": lambda data: lzma.decompress(data, format=lzma.FORMAT_ALONE),
        "zstd": lambda data: zstandard.ZstdDecompressor().decompress(data, len(plain)),
    }
    if codec != "lzo":  # shown above by lzop
        assert back[codec](stream) == plain
    if codec == "xz":
        assert stream[6:8] == b"\0\x01"  # stream flags: CRC32


def test_footer_and_header_layouts_hold_the_same_index() -> None:
    plain = cloop.sample(5 * 4096, 4096)
    front = cloop.build(plain, 4096, signature="V4.0", codec="lz4")
    back = cloop.build(plain, 4096, signature="V4.0", codec="lz4", layout="footer", gap=8)
    assert front[:136] == back[-136:]
    first = struct.unpack_from(">Q", back, len(back) - 136 - 6 * 8)[0]
    assert first == 3 << 60 | 8


def test_deduplicated_images_share_and_leave_out() -> None:
    plain = b"a" * 512 + b"\0" * 512 + b"b" * 512 + b"a" * 512
    image = cloop.build_uzip(plain, "v", 512)
    entries = struct.unpack_from(">5Q", image, 136)
    assert entries[1] == entries[2], "a block of zeros is stored as nothing"
    assert entries[3] == entries[0], "an equal block is stored once"
    assert len(image) % 512 == 0


@settings(deadline=None)
@given(st.binary(max_size=9000))
def test_fingerprint_is_a_signed_number_of_up_to_four_sums(base: bytes) -> None:
    value = cowfile.fingerprint(base)
    assert -(1 << 31) <= value < 1 << 31
    sums = [sum(base[at : at + 1024]) % 256 for at in range(0, len(base) - 1023, 1024)]
    want = [total for total in sums if total][:4]
    assert (value & 0xFFFFFFFF).to_bytes(4, "little") == bytes(want).ljust(4, b"\0")


@pytest.mark.parametrize("layout", cowfile.LAYOUTS)
def test_cowfiles_come_back_from_the_parser(tmp_path: Path, layout: str) -> None:
    base = cloop.sample(70_000, 1024, 4)
    changed = {0: b"x" * 1024, 9: b"y" * 1024, 67: b"\0" * 1024}
    path = tmp_path / "c"
    for packed in (False, True):
        path.write_bytes(cowfile.build(base, changed, layout, packed=packed))
        back = cowfile.parse(path)
        assert back.head.layout == layout
        assert back.head.rdoblocks == 68
        assert back.blocks == changed
    path.write_bytes(cowfile.build(base, changed, layout))
    assert cowfile.original_refuses(path, base) is None


def test_the_head_lies_where_the_page_says() -> None:
    base = b"\xff" + b"\0" * 1023 + b"\xf0" * 4096
    wide = cowfile.build(base, {}, "64-little")
    assert wide[:6] == b"\x7f\x43OW\x01\0"
    assert struct.unpack_from("<qqqqqq", wide, 8) == (1024, 1024, 4096, 5, 0xFF, 0)
    assert struct.unpack_from(">iiiiii", cowfile.build(base, {}, "32-big"), 8)[0] == 1024
    loud = b"".join(bytes([number]) + b"\0" * 1023 for number in (1, 2, 3, 0x80))
    assert cowfile.build(loud, {}, "64-little")[40:48] == b"\1\2\3\x80\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda head: setattr(head, "rdoblocks", 1), "rdoblocks"),
        (lambda head: setattr(head, "fingerprint", 5), "fingerprint"),
        (lambda head: setattr(head, "mapunit", 512), "not a cowfile"),
        (lambda head: setattr(head, "magic", 5), "not a cowfile"),
        (lambda head: setattr(head, "doffset", 8192), "doffset"),
    ],
)
def test_the_checker_refuses(
    tmp_path: Path, damage: Callable[[cowfile.Head], None], word: str
) -> None:
    base = cloop.sample(20_000, 1024, 4)
    head = cowfile.head_for(base)
    damage(head)
    path = tmp_path / "c"
    path.write_bytes(cowfile.build(base, {}, head=head))
    assert word in (cowfile.original_refuses(path, base) or "")


def test_the_checker_refuses_a_dirty_packed_newer_or_miscounted_file(tmp_path: Path) -> None:
    base = cloop.sample(20_000, 1024, 4)
    path = tmp_path / "c"
    for bad, word in [
        (cowfile.build(base, {}, flags=cowfile.DIRTY), "dirty"),
        (cowfile.build(base, {}, packed=True), "packed"),
        (cowfile.build(base, {}, version=2), "version"),
    ]:
        path.write_bytes(bad)
        assert word in (cowfile.original_refuses(path, base) or "")
    good = bytearray(cowfile.build(base, {3: b"z" * 1024}))
    good[1024] |= 1
    path.write_bytes(good)
    assert "cowused" in (cowfile.original_refuses(path, base) or "")


def test_the_filesystem_is_the_same_every_time(tmp_path: Path, ext2: Path) -> None:
    again = tmp_path / "again"
    images.make_ext2(again)
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(ext2.read_bytes()).digest()
    run(program("e2fsck", "e2fsprogs"), "-fn", again)
