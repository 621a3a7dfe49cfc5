"""A root file system from a compressed image, by the hook of initramfs-tools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.guest import Drive, Machine
from support.guest.life import PATIENCE, make_data
from support.guest.small import Lives, check, cowfile_of
from support.liar import Liar, liar
from support.programs import program, run
from support.server import serving

pytestmark = pytest.mark.timeout(2 * PATIENCE)


def _found(machine: Machine) -> list[str]:
    return [line for line in machine.results.splitlines() if line.startswith("found")]


def test_from_a_cd_with_the_cowfile_on_a_disk(
    initramfs: Path, small_root: Path, tmp_path: Path
) -> None:
    disc = tmp_path / "disc"
    (disc / "live").mkdir(parents=True)
    (disc / "live/root.cloop").symlink_to(small_root)
    iso = tmp_path / "live.iso"
    run(program("genisoimage", "genisoimage"), "-quiet", "-f", "-r", "-V", "LIVE", "-o", iso, disc)
    data = make_data(tmp_path, "48M", "-L", "CHANGES")
    root = "LABEL=LIVE/live/root.cloop,cow=LABEL=CHANGES"
    lives = Lives(initramfs, root, Drive(iso, cd=True), Drive(data, scratch=False))
    first = lives.live()
    assert _found(first) == ["found "], first.console
    assert "root /dev/ublkb0 ext2" in first.results
    assert "daemon 1\n" in first.results
    assert _found(lives.live()) == ["found life 1"]
    check(small_root, cowfile_of(data, tmp_path), tmp_path)


@pytest.fixture
def web(small_root: Path) -> Iterator[Liar]:
    """A web server with the image."""
    with liar(small_root.read_bytes()) as server:
        yield server


def test_from_a_web_server(initramfs: Path, small_root: Path, web: Liar, tmp_path: Path) -> None:
    data = make_data(tmp_path, "48M", "-L", "CHANGES")
    url = web.url.replace("127.0.0.1", "10.0.2.2")
    root = f"{url},cow=LABEL=CHANGES"
    lives = Lives(initramfs, root, Drive(data, scratch=False), network=True)
    assert _found(lives.live()) == ["found "]
    fetched = sum(last - first for first, last in web.asked)
    assert 0 < fetched <= small_root.stat().st_size
    check(small_root, cowfile_of(data, tmp_path), tmp_path)


def test_from_a_session_of_a_server(initramfs: Path, small_root: Path, tmp_path: Path) -> None:
    before = small_root.read_bytes()
    folder = tmp_path / "class"
    with serving(small_root, "--sessions", folder, "--tcp", "0") as server:
        root = f"nbd://10.0.2.2:{server.uri.rpartition(':')[2].strip('/')}/pc-%m"
        lives = Lives(initramfs, root, network=True)
        first = lives.live()
        assert _found(first) == ["found "]
        assert "root /dev/nbd0 ext2" in first.results
        assert _found(lives.live()) == ["found life 1"]
    (cowfile,) = folder.glob("*.cow")
    assert cowfile.name == "pc-52-54-00-12-34-56.cow"
    check(small_root, cowfile, tmp_path)
    assert small_root.read_bytes() == before
