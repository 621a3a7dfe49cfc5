"""A base with a wrong byte: the damage stays where its checksum finds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import cloop, cowfile, nbdclient
from support.programs import cowcloop, refused
from support.server import Server

BLOCK = 64 << 10
PLAIN = cloop.sample(4 * BLOCK, 4096)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """The last byte of the second block's checksum is another one."""
    path = tmp_path / "damaged.img"
    built = bytearray(cloop.build(PLAIN, BLOCK))
    end = int.from_bytes(built[136 + 16 : 136 + 24], "big")
    built[end - 1] ^= 1
    path.write_bytes(built)
    return path


def fails(request: object, *arguments: object) -> None:
    with pytest.raises(nbdclient.module().Error, match="Input/output error"):
        request(*arguments)  # type: ignore[operator]


@pytest.mark.parametrize("options", [(), ("--strict",)], ids=["", "strict"])
def test_a_write_of_a_part_does_not_copy_it(
    damaged: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    cow = tmp_path / "c.cow"
    server = Server(damaged, cow, *options)
    handle = nbdclient.connect(server.uri)
    fails(handle.pwrite, b"x" * 512, BLOCK + 512)
    fails(handle.zero, 512, BLOCK + 1024)
    # Whole KiB, and other blocks, are none of its business.
    handle.pwrite(b"y" * 1024, BLOCK + 8192)
    handle.pwrite(b"z" * 512, 512)
    handle.shutdown()
    assert server.stop() == 0
    found = cowfile.parse(cow)
    assert sorted(found.blocks) == [0, (BLOCK + 8192) // 1024]
    assert found.blocks[0] == PLAIN[:512] + b"z" * 512


def test_nothing_that_is_made_of_it_holds_it(damaged: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c.cow"
    server = Server(damaged, cow)
    handle = nbdclient.connect(server.uri)
    # All of the block but its beginning lives in the cowfile.
    handle.pwrite(b"y" * (BLOCK - 8192), BLOCK + 8192)
    handle.shutdown()
    assert server.stop() == 0
    for command in ("extract", "commit"):
        out = tmp_path / command
        refused(command, damaged, cow, out, says=("damaged.img", "block 1", "damaged"))
        assert not out.exists()
    cowcloop("verify", damaged, expect=1)
