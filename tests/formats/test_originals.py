"""Files that the original programs wrote, and what the programs of other projects make for us."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from support import cloop
from support.programs import cowcloop, program, refused, run

DATA = Path(__file__).parent.parent / "data"

#: file -> (SHA-256 of the device, its size, version, codec)
UZIP = {
    "mkuzip-L3.0.ulzma": (
        "ae0c1dee8d5ba245b5a5bc97894c284e01f1be771cd8e68c04cd2e41928c9054",
        163_840,
        "L3.0",
        "lzma",
    ),
    "mkuzip-Z4.0-endentry0.uzst": (
        "0fc72c8ad61f26b369980793dc49e550d680b20d0c274e4a1486117a137f1832",
        20_480,
        "Z4.0",
        "zstd",
    ),
}


@pytest.mark.parametrize("name", UZIP)
def test_images_of_mkuzip(name: str) -> None:
    digest, size, version, codec = UZIP[name]
    device = cowcloop("extract", DATA / name, "-").stdout
    assert len(device) == size
    assert hashlib.sha256(device).hexdigest() == digest
    info = json.loads(cowcloop("info", "--json", DATA / name).stdout)
    assert (info["format"], info["version"], info["size"]) == ("uzip", version, size)
    assert set(info["codecs"]) == {codec}
    assert json.loads(cowcloop("verify", "--json", DATA / name).stdout)["bad"] == []


@pytest.mark.parametrize("signature", ["L3.0", "V4.0"])
def test_blocks_that_xz_compressed(tmp_path: Path, signature: str) -> None:
    """The xz program's streams, with the check that FreeBSD's kernel and cloop's driver know."""
    plain = cloop.sample(5 * 16384, 16384)
    streams = []
    for block in cloop.split(plain, 16384):
        (tmp_path / "block").write_bytes(block)
        packed = run(program("xz", "xz-utils"), "-c", "--check=crc32", tmp_path / "block")
        streams.append(packed.stdout)
    flags = [2] * len(streams) if signature == "V4.0" else []
    (tmp_path / "image").write_bytes(cloop.assemble(signature, 16384, streams, flags=flags))
    assert cowcloop("extract", tmp_path / "image", "-").stdout == plain


def test_info_names_a_gzipped_packed_cowfile(tmp_path: Path) -> None:
    path = DATA / "cowpack31-64bit.packed.gz"
    info = json.loads(cowcloop("info", "--json", path).stdout)
    assert (info["type"], info["state"], info["gzip"]) == ("cowfile", "packed", True)
    assert (info["word_size"], info["byte_order"]) == (64, "little")
    assert (info["blocks_used"], info["blocks_total"]) == (7, 64)
    assert b"cowfile version 1, gzipped" in cowcloop("info", path).stdout
    refused("attach", DATA / "cowbase.raw", path, says=("gzip", "cow unpack"))
    # Anything else that is gzipped is not ours.
    other = tmp_path / "other.gz"
    other.write_bytes(gzip.compress(b"something else" * 100))
    assert json.loads(cowcloop("info", "--json", other).stdout)["type"] == "raw"


@pytest.mark.parametrize("signature", ["V2.0", "V4.0"])
def test_an_image_without_a_script(tmp_path: Path, signature: str) -> None:
    """The kernel driver asks for the version alone."""
    plain = cloop.sample(13 * 4096, 4096)
    path = tmp_path / "image"
    path.write_bytes(b"\0" * 11 + cloop.build(plain, 4096, signature=signature)[11:])
    info = json.loads(cowcloop("info", "--json", path).stdout)
    assert (info["type"], info["version"], info["size"]) == ("cloop", signature, len(plain))
    assert cowcloop("extract", path, "-").stdout == plain
