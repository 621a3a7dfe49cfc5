"""Libraries from PyPI that take a file object take a disk: ext2py reads what is in it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

import cowcloop
import ext2py
import pytest
from support import cloop, images
from support.programs import program, run

MIB = 1 << 20


def test_a_file_system_is_read_through_a_disk(chicken: Path, tmp_path: Path) -> None:
    images.tree(tmp_path / "tree")
    with cowcloop.open(chicken) as disk, ext2py.ExtFS(disk) as filesystem:
        assert filesystem.sb.fs_type == "ext2"
        found = {
            f"{folder.rstrip('/')}/{name}": filesystem.read_file(f"{folder.rstrip('/')}/{name}")
            for folder, _, names in filesystem.walk("/")
            for name in names
            if stat.S_ISREG(filesystem.lstat(f"{folder.rstrip('/')}/{name}").mode)
        }
    expected = {
        f"/{path.relative_to(tmp_path / 'tree')}": path.read_bytes()
        for path in (tmp_path / "tree").rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert len(expected) > 60
    assert found == expected


def test_it_sees_what_was_written(chicken: Path, tmp_path: Path) -> None:
    """The same, over a cowfile: what is read is the device, not the image."""
    label = b"over the image"
    with cowcloop.open(chicken, tmp_path / "c") as disk:
        disk.pwrite(label.ljust(16, b"\0"), 1024 + 120)
        with ext2py.ExtFS(disk) as filesystem:
            assert filesystem.sb.volume_name == label.decode()


@pytest.mark.parametrize("table", ["dos", "gpt"])
def test_partitions_are_found_through_a_disk(ext2: Path, tmp_path: Path, table: str) -> None:
    raw, image = tmp_path / "raw", tmp_path / "i.img"
    with raw.open("wb") as file:
        file.truncate(16 * MIB)
    layout = f"label: {table}\nstart=1MiB, size=2MiB\nstart=4MiB, size=8MiB\n"
    run(program("sfdisk", "fdisk"), "-q", raw, stdin=layout.encode())
    with raw.open("r+b") as file:
        file.seek(4 * MIB)
        file.write(ext2.read_bytes())
    image.write_bytes(cloop.build(raw.read_bytes(), 65536))
    with cowcloop.open(image) as disk:
        as_any_file: BinaryIO = disk
        first, second = ext2py.find_partitions(as_any_file)
        assert (first.offset, first.size) == (MIB, 2 * MIB)
        assert (second.offset, second.size) == (4 * MIB, 8 * MIB)
        with ext2py.ExtFS(disk, second.offset) as filesystem:
            assert filesystem.read_file("/usr/zeros.bin").endswith(b"\0end")
