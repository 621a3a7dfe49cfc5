"""Block devices that are mounted or served are no place for an output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cloop, nbdclient
from support.programs import cowcloop, program, refused, run
from support.server import serving, wait_until

PLAIN = cloop.sample(4 << 20, 65536)

COMMANDS = pytest.mark.parametrize(
    "command", [("extract", "{image}", "{disk}"), ("create", "{raw}", "{disk}")], ids=lambda c: c[0]
)


@pytest.fixture
def disk(loop: None, tmp_path: Path) -> Iterator[Path]:
    """A loop device with an ext2 file system."""
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(8 << 20)
    run(program("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext2", backing)
    losetup = program("losetup", "mount")
    device = Path(run(losetup, "--find", "--show", backing).stdout.decode().strip())
    yield device
    wait_until(lambda: run(losetup, "-d", device, expect=None).returncode == 0, "losetup")


def _words(command: tuple[str, ...], tmp_path: Path, disk: Path) -> list[str]:
    return [word.format(image=tmp_path / "i", raw=tmp_path / "r", disk=disk) for word in command]


def _try(command: tuple[str, ...], tmp_path: Path, disk: Path) -> None:
    (tmp_path / "i").write_bytes(cloop.build(PLAIN, 65536))
    (tmp_path / "r").write_bytes(PLAIN)
    before = disk.read_bytes()
    refused(*_words(command, tmp_path, disk), says="in use")
    assert disk.read_bytes() == before


@COMMANDS
def test_a_mounted_one(tmp_path: Path, disk: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    run("mount", disk, folder)
    try:
        _try(command, tmp_path, disk)
    finally:
        run("umount", folder)
    cowcloop(
        *(word.format(image=tmp_path / "i", raw=tmp_path / "r", disk=disk) for word in command)
    )


@COMMANDS
def test_a_served_one(tmp_path: Path, disk: Path, command: tuple[str, ...]) -> None:
    with serving(disk, ":memory:") as server:
        handle = nbdclient.connect(server.uri)
        _try(command, tmp_path, disk)
        # Two may serve it.
        with serving(disk):
            pass
        handle.shutdown()
