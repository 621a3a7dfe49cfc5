"""cowcloop digest against the program of fs-verity itself."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import cowcloop as package
import pytest
from support.programs import Argument, cowcloop, program, refused, run

BLOCK = 4096
#: What each level of the tree has room for: 128 blocks, and 128 of these.
LEVEL = 128 * BLOCK
SIZES = [
    *(0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5),
    *(LEVEL - 1, LEVEL, LEVEL + 1, 3 * LEVEL - BLOCK, 128 * LEVEL - 1, 128 * LEVEL + 1),
]


def fsverity(image: Path, *options: Argument) -> str:
    """The line of `fsverity digest`."""
    found = run(program("fsverity", "fsverity"), "digest", image, *options)
    return found.stdout.decode()


@pytest.mark.parametrize("size", SIZES)
def test_digest_and_tree_are_those_of_fsverity(tmp_path: Path, size: int) -> None:
    image = tmp_path / "i.img"
    image.write_bytes(random.Random(size).randbytes(size))
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    line = fsverity(image, f"--out-merkle-tree={theirs}")
    done = cowcloop("digest", image, "--tree", ours)
    assert done.stdout.decode() == line == f"{line.split()[0]} {image}\n"
    assert ours.read_bytes() == theirs.read_bytes()
    assert package.digest(image) == line.split()[0]


def test_a_sparse_image_and_one_thread_give_the_same(tmp_path: Path) -> None:
    image = tmp_path / "i.img"
    with image.open("wb") as file:
        file.truncate(40 << 20)
        file.seek(9 << 20)
        file.write(b"data")
    line = fsverity(image)
    assert cowcloop("digest", image).stdout.decode() == line
    assert cowcloop("digest", image, "--threads", "1").stdout.decode() == line


def test_an_image_in_an_iso_has_the_digest_of_its_file(
    tmp_path: Path, chicken: Path, iso_of_chicken: Path
) -> None:
    named = f"{iso_of_chicken}:/KNOPPIX/KNOPPIX"
    wanted = fsverity(chicken).split()[0]
    assert cowcloop("digest", named).stdout.decode() == f"{wanted} {named}\n"
    document = json.loads(cowcloop("digest", named, "--json").stdout)
    size = chicken.stat().st_size
    assert document == {"image": named, "digest": wanted, "size": size, "tree": None}


def test_an_existing_tree_is_replaced_and_other_files_are_kept(
    tmp_path: Path, chicken: Path
) -> None:
    tree = tmp_path / "tree"
    tree.write_bytes(b"old" * 1_000_000)
    cowcloop("digest", chicken, "--tree", tree)
    assert tree.stat().st_size % BLOCK == 0
    whole = tree.read_bytes()
    image = tmp_path / "i.img"
    image.write_bytes(chicken.read_bytes())
    refused("digest", image, "--tree", image, says="is also an input")
    other = tmp_path / "other.img"
    other.write_bytes(chicken.read_bytes())
    refused("digest", image, "--tree", other, says="is a compressed image")
    cowcloop("digest", image, "--tree", other, "--force")
    assert other.read_bytes() == whole
    assert image.read_bytes() == chicken.read_bytes()


def test_what_cannot_be_read_or_written(tmp_path: Path, chicken: Path) -> None:
    refused("digest", tmp_path / "none", says=("none", "No such file"))
    refused("digest", tmp_path, says="directory")
    refused("digest", chicken, "--tree", tmp_path / "no" / "tree", says="tree")
    refused("digest", chicken, "--tree", tmp_path, says="is a directory")
    done = cowcloop("digest", chicken, "--tree", "-", expect=2)
    assert "needs the name of a file" in done.stderr.decode()
    cowcloop("digest", expect=2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused("digest", pipe, says="save it in a file first")
