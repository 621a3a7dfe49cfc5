"""Builds compressed images of every kind, from the format page alone."""

from __future__ import annotations

import lzma
import random
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Callable, Union

import lz4.block
import zstandard

from support import lzo

PREAMBLE_BYTES = 128
HEADER_BYTES = 136

#: V4.0: the compressor's number in the upper four bits of an index entry.
FLAGS = {"zlib": 0, "none": 1, "xz": 2, "lz4": 3, "lzo": 4}
CODECS = tuple(FLAGS)

Codec = Union[str, Callable[[int], str]]


def encode(codec: str, data: bytes) -> bytes:
    """One block, compressed the way the named compressor stores it."""
    if codec == "zlib":
        return zlib.compress(data, 9)
    if codec == "none":
        return data
    if codec == "xz":
        return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=1)
    if codec == "lz4":
        packed: bytes = lz4.block.compress(data, mode="default", store_size=False)
        return packed
    if codec == "lzo":
        return lzo.compress(data)
    if codec == "lzma":  # not what mkuzip writes: see ``alone`` of build_uzip
        filters = [{"id": lzma.FILTER_LZMA1, "preset": 1}]
        return lzma.compress(data, format=lzma.FORMAT_ALONE, filters=filters)
    if codec == "zstd":
        return zstandard.ZstdCompressor(level=3).compress(data)
    raise ValueError(codec)


def preamble(signature: str) -> bytes:
    """The shell script at the front, with ``signature`` at 0x0b."""
    script = b"#!/bin/sh\n#" + signature.encode() + b" Format\n"
    script += b"echo this is a compressed image\nexit $?\n"
    return script.ljust(PREAMBLE_BYTES, b"\0")


def header(signature: str, block_size: int, blocks: int) -> bytes:
    return preamble(signature) + struct.pack(">II", block_size, blocks)


def index(entries: Iterable[int]) -> bytes:
    numbers = list(entries)
    return struct.pack(f">{len(numbers)}Q", *numbers)


def split(plain: bytes, block_size: int) -> list[bytes]:
    """The blocks of a device, the last one padded with zeros."""
    return [
        plain[at : at + block_size].ljust(block_size, b"\0")
        for at in range(0, len(plain), block_size)
    ]


def padded(plain: bytes, block_size: int) -> bytes:
    """What a device made of ``plain`` reads as."""
    return plain.ljust(-(-len(plain) // block_size) * block_size, b"\0")


def assemble(
    signature: str,
    block_size: int,
    streams: Sequence[bytes],
    *,
    flags: Sequence[int] = (),
    layout: str = "header",
    gap: int = 0,
    padding: int = 0,
    end_flag: int = 0,
    blocks: int | None = None,
) -> bytes:
    """An image of blocks that are compressed already.

    ``gap``: bytes between the index (or the file's start) and the first block.
    ``padding``: bytes after the last block. ``end_flag``: flags of the last index
    entry, which mean nothing. ``blocks``: what the header claims.
    """
    count = len(streams)
    claimed = count if blocks is None else blocks
    numbers = list(flags) or [0] * count
    first = gap if layout == "footer" else HEADER_BYTES + 8 * (count + 1) + gap
    entries = []
    at = first
    for stream, flag in zip(streams, numbers):
        entries.append(flag << 60 | at)
        at += len(stream)
    entries.append(end_flag << 60 | at)
    filler = random.Random(7).randbytes
    head, table, body = header(signature, block_size, claimed), index(entries), b"".join(streams)
    if layout == "footer":
        return filler(gap) + body + filler(padding) + table + head
    return head + table + filler(gap) + body + filler(padding)


def build(
    plain: bytes,
    block_size: int = 65536,
    *,
    signature: str = "V2.0",
    codec: Codec = "zlib",
    layout: str = "header",
    gap: int = 0,
    padding: int = 0,
    end_flag: int = 0,
    level: int | None = None,
) -> bytes:
    """A cloop image of ``plain``; ``codec`` may choose for each block."""
    names = []
    streams = []
    for number, data in enumerate(split(plain, block_size)):
        name = codec if isinstance(codec, str) else codec(number)
        names.append(name)
        if level is not None and name == "zlib":
            streams.append(zlib.compress(data, level))
        else:
            streams.append(encode(name, data))
    return assemble(
        signature,
        block_size,
        streams,
        flags=[FLAGS[name] for name in names],
        layout=layout,
        gap=gap,
        padding=padding,
        end_flag=end_flag,
    )


UZIP_SIGNATURES = {"V": "V2.0", "v": "v3.0", "L": "L3.0", "l": "l3.0", "Z": "Z4.0", "z": "z4.0"}
_UZIP_CODECS = {"v": "zlib", "l": "xz", "z": "zstd"}

#: What mkuzip puts behind the signature; nothing else tells its V2.0 from cloop's.
_MKUZIP_SCRIPT = (
    b"(kldstat -qm g_uzip||kldload geom_uzip)>&-"
    b"&&mount_cd9660 /dev/`mdconfig -af $0`.uzip $1\nexit $?\n"
)

#: What the last index entry may hold where the blocks happen to end on a 512-byte boundary.
GARBAGE = 0xDEADBEEF00005678


def build_uzip(
    plain: bytes,
    kind: str,
    block_size: int = 16384,
    *,
    holes: bool = True,
    short_last: bool = False,
    end: int | None = None,
    alone: bool = False,
    pad: int = 512,
) -> bytes:
    """An image as FreeBSD's mkuzip writes it; lower-case kinds share equal blocks.

    ``holes``: blocks of zeros are stored as nothing. ``short_last``: the last
    stream inflates to only what ``plain`` has. ``end``: what the last index
    entry holds in place of the end. ``alone``: LZMA as old versions of mkulzma
    wrote it, .lzma and not .xz.
    """
    codec = "lzma" if alone else _UZIP_CODECS[kind.lower()]
    pieces = [plain[at : at + block_size] for at in range(0, len(plain), block_size)]
    if not short_last:
        pieces = split(plain, block_size)
    at = HEADER_BYTES + 8 * (len(pieces) + 1)
    body = bytearray()
    entries = []
    seen: dict[bytes, int] = {}
    for piece in pieces:
        if holes and not any(piece):
            entries.append(at + len(body))
            continue
        if kind.islower() and piece in seen:
            entries.append(seen[piece])
            continue
        seen[piece] = at + len(body)
        entries.append(at + len(body))
        body += encode(codec, piece)
    entries.append(at + len(body) if end is None else end)
    script = b"#!/bin/sh\n#" + UZIP_SIGNATURES[kind].encode() + b" Format\n" + _MKUZIP_SCRIPT
    head = script.ljust(PREAMBLE_BYTES, b"\0") + struct.pack(">II", block_size, len(pieces))
    image = head + index(entries) + bytes(body)
    return image + b"\0" * (-len(image) % pad)


def sample(size: int, block_size: int, seed: int = 1) -> bytes:
    """Bytes with something of everything: text, noise, zeros, repeated blocks."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randint(2, 9)).hex().encode() for _ in range(200)]
    out = bytearray()
    shared = rng.randbytes(block_size // 2) + b"\x55" * (block_size - block_size // 2)
    kinds = ("text", "zeros", "noise", "shared", "mixed", "text")
    number = 0
    while len(out) < size:
        kind = kinds[number % len(kinds)]
        if kind == "zeros":
            piece = b"\0" * block_size
        elif kind == "noise":
            piece = rng.randbytes(block_size)
        elif kind == "shared":
            piece = shared
        else:
            text = b" ".join(rng.choice(words) for _ in range(block_size // 3 + 1))
            piece = text[:block_size]
            if kind == "mixed":
                piece = piece[: block_size // 3] + b"\0" * (block_size - block_size // 3)
        out += piece
        number += 1
    return bytes(out[:size])


#: What most tests' device holds: see the fixture ``image``.
PLAIN = sample(160 << 10, 4096)
