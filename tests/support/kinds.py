"""One small image of every kind that FORMATS knows, with what it must read as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support import cloop


@dataclass
class Kind:
    """An image and what is true of it."""

    name: str
    make: Callable[[], tuple[bytes, bytes]]  # (image, device)
    info: dict[str, Any] = field(default_factory=dict)
    qemu: bool = False  # qemu-img can read it too
    debian: bool = False  # and so can extract_compressed_fs

    def __str__(self) -> str:
        return self.name


def _v2(name: str, block_size: int, blocks: int, cut: int = 0, **options: Any) -> Kind:

    def make() -> tuple[bytes, bytes]:
        plain = cloop.sample(block_size * blocks - cut, block_size)
        return cloop.build(plain, block_size, **options), cloop.padded(plain, block_size)

    info = {
        "format": "cloop",
        "version": options.get("signature", "V2.0"),
        "layout": options.get("layout", "header"),
        "block_size": block_size,
        "blocks": blocks,
        "size": block_size * blocks,
        "codecs": {"zlib": blocks},
    }
    plainly = options.get("layout", "header") == "header"
    debian = plainly and blocks >= 10 and not options.get("gap")
    return Kind(name, make, info, qemu=plainly, debian=debian)


def _v4(name: str, codec: cloop.Codec, *, blocks: int = 13, **options: Any) -> Kind:
    block_size = 16384
    names = [codec if isinstance(codec, str) else codec(number) for number in range(blocks)]

    def make() -> tuple[bytes, bytes]:
        plain = cloop.sample(block_size * blocks - 5000, block_size)
        image = cloop.build(plain, block_size, signature="V4.0", codec=codec, **options)
        return image, cloop.padded(plain, block_size)

    info = {
        "format": "cloop",
        "version": "V4.0",
        "layout": options.get("layout", "header"),
        "block_size": block_size,
        "blocks": blocks,
        "codecs": {each: names.count(each) for each in sorted(set(names))},
    }
    return Kind(name, make, info)


def _uzip(
    name: str, letter: str, *, blocks: int = 18, cut: int = 0, zeros: int = 0, **options: Any
) -> Kind:
    block_size = options.get("block_size", 16384)

    def make() -> tuple[bytes, bytes]:
        plain = cloop.sample(block_size * blocks - cut, block_size) + b"\0" * zeros * block_size
        image = cloop.build_uzip(plain, letter, **options)
        return image, cloop.padded(plain, block_size)

    info = {
        "format": "uzip",
        "version": cloop.UZIP_SIGNATURES[letter],
        "block_size": block_size,
        "blocks": blocks + zeros,
        "size": block_size * (blocks + zeros),
    }
    return Kind(name, make, info)


def _mixed(number: int) -> str:
    return cloop.CODECS[number % len(cloop.CODECS)]


KINDS = [
    _v2("v2-64k", 65536, 12, cut=1000),
    _v2("v2-512", 512, 40),
    _v2("v2-one-block", 4096, 1),
    _v2("v2-odd-block-size", 512 * 7, 23, cut=11),
    _v2("v2-gap-and-padding", 4096, 13, gap=40, padding=3000),
    _v2("v2-footer", 4096, 13, layout="footer"),
    _v2("v2-stored-deflate", 4096, 13, level=0),
    _v2("v4-header-zlib", 4096, 13, signature="V4.0"),
    *[_v4(f"v4-{codec}", codec) for codec in cloop.CODECS],
    *[_v4(f"v4-footer-{codec}", codec, layout="footer", gap=512) for codec in cloop.CODECS],
    _v4("v4-all-codecs", _mixed),
    _v4("v4-footer-all-codecs", _mixed, layout="footer", padding=777),
    _v4("v4-end-flag-means-nothing", "zlib", end_flag=9),
    _v4("v4-one-block", "xz", blocks=1),
    *[_uzip(f"uzip-{letter}", letter) for letter in "VLZvlz"],
    *[_uzip(f"uzip-{letter}-short-last", letter, short_last=True, cut=700) for letter in "VLZz"],
    _uzip("uzip-V-no-holes", "V", holes=False),
    *[_uzip(f"uzip-{letter}-end-0", letter, end=0) for letter in "VLZvlz"],
    *[_uzip(f"uzip-{letter}-end-0-zeros", letter, end=0, zeros=1) for letter in "VLZvlz"],
    *[_uzip(f"uzip-{letter}-end-garbage", letter, end=cloop.GARBAGE) for letter in "VLvl"],
    _uzip("uzip-l-end-garbage-zeros", "l", end=cloop.GARBAGE, zeros=2),
    _uzip("uzip-L-alone", "L", alone=True),
    _uzip("uzip-l-alone", "l", alone=True),
    _uzip("uzip-z-small-blocks", "z", block_size=512, blocks=90),
]
