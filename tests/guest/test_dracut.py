"""A root file system from a compressed image, by the module of dracut: with systemd and without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import images
from support.guest import Drive
from support.guest.dracut import make_initramfs
from support.guest.life import PATIENCE, make_data
from support.guest.machine import boot
from support.guest.small import Lives, check, cowfile_of
from support.liar import Liar, liar
from support.programs import program, run

pytestmark = [pytest.mark.boot, pytest.mark.timeout(2 * PATIENCE)]

#: An initramfs of dracut's is bigger than one of initramfs-tools.
_MEMORY_MIB = 384

# Nobody is there to use a shell.
_NO_SHELL = "rd.shell=0 rd.emergency=reboot"


def _initramfs(shared: Path, name: str, *, systemd: bool) -> Path:
    def make(place: Path) -> None:
        make_initramfs(place, systemd=systemd)

    return images.once(shared / "live" / name, make)


@pytest.fixture(scope="session")
def by_systemd(shared: Path) -> Path:
    """As Debian's dracut makes it where the system has systemd."""
    return _initramfs(shared, "dracut-systemd", systemd=True)


@pytest.fixture(scope="session")
def by_scripts(shared: Path) -> Path:
    """Without systemd."""
    return _initramfs(shared, "dracut", systemd=False)


@pytest.fixture
def disc(small_root: Path, tmp_path: Path) -> Drive:
    """A CD with the image."""
    folder = tmp_path / "disc"
    folder.mkdir()
    (folder / "root.cloop").symlink_to(small_root)
    iso = tmp_path / "live.iso"
    genisoimage = program("genisoimage", "genisoimage")
    run(genisoimage, "-quiet", "-f", "-r", "-V", "LIVE", "-o", iso, folder)
    return Drive(iso, cd=True)


def _two_lives(initramfs: Path, small_root: Path, disc: Drive, folder: Path) -> None:
    before = small_root.read_bytes()
    data = make_data(folder, "48M", "-L", "CHANGES")
    root = "LABEL=LIVE/root.cloop,cow=LABEL=CHANGES"
    lives = Lives(initramfs, root, disc, Drive(data, scratch=False), memory=_MEMORY_MIB)
    lives.append += f" {_NO_SHELL}"
    first = lives.live()
    assert "root /dev/ublkb0 ext2\ndaemon 1\nfound \n" in first.results
    second = lives.live()
    assert "found life 1\n" in second.results
    # The end is as well in order as the beginning.
    assert "cowcloopd: error" not in first.console + second.console
    check(small_root, cowfile_of(data, folder), folder)
    assert small_root.read_bytes() == before


def test_from_a_cd_by_systemd(
    by_systemd: Path, small_root: Path, disc: Drive, tmp_path: Path
) -> None:
    _two_lives(by_systemd, small_root, disc, tmp_path)


def test_from_a_cd_by_scripts(
    by_scripts: Path, small_root: Path, disc: Drive, tmp_path: Path
) -> None:
    _two_lives(by_scripts, small_root, disc, tmp_path)


@pytest.mark.parametrize("name", ["by_systemd", "by_scripts"])
def test_a_wrong_label_is_named(name: str, request: pytest.FixtureRequest) -> None:
    machine = boot(
        request.getfixturevalue(name),
        append=f"root=cowcloop:LABEL=NONE/root.cloop rw {_NO_SHELL}",
        memory=_MEMORY_MIB,
        timeout=PATIENCE,
    )
    problem = "cowcloop: LABEL=NONE/root.cloop: there is no such device, label or UUID\n"
    assert "cowcloop: waiting for LABEL=NONE\n" in machine.console
    assert problem in machine.console
    assert "Kernel panic" not in machine.console


@pytest.fixture
def web(small_root: Path) -> Iterator[Liar]:
    """A web server with the image."""
    with liar(small_root.read_bytes()) as server:
        yield server


@pytest.mark.parametrize("name", ["by_systemd", "by_scripts"])
def test_from_a_web_server(name: str, request: pytest.FixtureRequest, web: Liar) -> None:
    url = web.url.replace("127.0.0.1", "10.0.2.2")
    initramfs = request.getfixturevalue(name)
    lives = Lives(initramfs, url, network=True, memory=_MEMORY_MIB)
    lives.append += f" {_NO_SHELL}"
    assert "found \n" in lives.live().results
    assert web.asked
