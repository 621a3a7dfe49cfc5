"""Images at a URL that are verified by a digest tree in a file."""

from __future__ import annotations

from pathlib import Path

import cowcloop
import pytest
from support import programs
from support.liar import Liar


def tree_of(data: bytes, folder: Path) -> Path:
    """The digest tree of an image with these bytes."""
    image, tree = folder / "image", folder / "tree"
    image.write_bytes(data)
    programs.cowcloop("digest", image, "--tree", tree)
    return tree


def test_an_image_is_verified_by_the_tree_alone_and_by_its_root(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    tree = tree_of(raw, tmp_path)
    for root in (None, cowcloop.digest(tmp_path / "image")):
        with cowcloop.open(server.url, verity=root, verity_tree=tree) as disk:
            assert disk.read() == raw
    with pytest.raises(cowcloop.MismatchError, match="is asked for"):
        cowcloop.open(server.url, verity="0" * 64, verity_tree=tree).close()


def test_a_block_that_the_tree_does_not_know_is_an_error(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    other = bytearray(raw)
    other[3_000_000] ^= 1
    tree = tree_of(bytes(other), tmp_path)
    with cowcloop.open(server.url, verity_tree=tree) as disk:
        assert disk.pread(1000, 0) == raw[:1000]
        with pytest.raises(OSError, match="at offset 2998272 "):
            disk.pread(1000, 3_000_000)
