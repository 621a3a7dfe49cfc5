"""Whole Debians as roots, with systemd and with sysvinit: `make test-boot` runs these."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.guest import Drive, Machine, boot
from support.guest.debian import debian
from support.guest.life import PATIENCE, Partition, make_data
from support.guest.small import check, cowfile_of
from support.liar import Liar, liar
from support.programs import cowcloop, program, run

SCENARIO = Path(__file__).with_name("scenario_debian.sh")

# Several boots, on a machine that does other things.
pytestmark = [pytest.mark.boot, pytest.mark.timeout(4 * PATIENCE)]

#: Memory of a machine whose image is larger.
_MEMORY_MIB = 256
_NOISE_MIB = 224

#: What the kernel says when a root is still mounted as its daemon ends, and worse.
_TROUBLE = "I/O error|Aborting journal|shut down requested|Kernel panic"


def _image(folder: Path, init: str, noise: int = 0) -> Path:
    """A compressed Debian with the scenario, and with so many MiB that make it larger."""
    raw, image, extra = folder / "root.img", folder / "root.cloop", folder / "noise"
    run(program("cp", "coreutils"), "--sparse=always", debian(init), raw)
    files = {"scenario": SCENARIO}
    if noise:
        with extra.open("wb") as file:
            for _ in range(noise):
                file.write(os.urandom(1 << 20))
        files["noise"] = extra
    for name, source in files.items():
        run(program("debugfs", "e2fsprogs"), "-w", "-R", f"write {source} {name}", raw)
    cowcloop("create", "--quiet", "--level", "1", raw, image)
    raw.unlink()
    extra.unlink(missing_ok=True)
    return image


def _digest(path: Path) -> bytes:
    return run(program("sha256sum", "coreutils"), path).stdout


class Lives:
    """A Debian whose cowfile is on a partition, from one start to the next."""

    def __init__(self, folder: Path, initramfs: Path, image: Path, *drives: Drive) -> None:
        self.folder = folder
        self.initramfs = initramfs
        self.image = image
        data = make_data(folder, "64M", "-L", "CHANGES")
        self.changes = Partition.make(folder / "changes.img", data)
        self.drives = (*drives, Drive(self.changes.disk, scratch=False))

    def live(self, root: str, memory: int, *, network: bool = False) -> Machine:
        """From the start to a reboot, or to the end."""
        done = boot(
            self.initramfs,
            drives=self.drives,
            append=f"root=cowcloop:{root},cow=LABEL=CHANGES rw",
            memory=memory,
            network=network,
            timeout=2 * PATIENCE,
        )
        assert done.results.endswith("end\n"), f"{done.results}\n{done.console}"
        assert _said(done, "login") == "root"
        assert "@cowcloopd" in _said(done, "daemon"), done.results
        # The file system was unmounted before its daemon ended, and that before its own disk.
        assert not re.search(_TROUBLE, done.console), done.console
        self._check()
        return done

    def _check(self) -> None:
        """The cowfile is closed, and the file system of both together has no fault."""
        data = self.folder / "data.img"
        self.changes.read(data)
        check(self.image, cowfile_of(data, self.folder), self.folder)
        written = run(
            program("debugfs", "e2fsprogs"), "-R", "cat /new.txt", self.folder / "device.raw"
        )
        assert written.stdout == b"written\n"


def _said(machine: Machine, name: str) -> str:
    found = re.search(rf"^{name} (.*)$", machine.results, re.MULTILINE)
    assert found is not None, machine.results
    return found[1]


def test_systemd_from_an_iso_image_that_is_larger_than_the_memory(
    initramfs: Path, tmp_path: Path
) -> None:
    image = _image(tmp_path, "systemd", _NOISE_MIB)
    size = image.stat().st_size
    # So the most memory that the machine can have used is less than the image.
    assert size > _MEMORY_MIB << 20
    disc = tmp_path / "disc"
    (disc / "live").mkdir(parents=True)
    (disc / "live/root.cloop").symlink_to(image)
    iso = tmp_path / "live.iso"
    genisoimage = program("genisoimage", "genisoimage")
    run(genisoimage, "-quiet", "-f", "-r", "-V", "LIVE", "-o", iso, disc)
    before = _digest(iso)
    # It is not protected by its drive.
    lives = Lives(tmp_path, initramfs, image, Drive(iso, scratch=False))
    root = "LABEL=LIVE/live/root.cloop"
    first = lives.live(root, _MEMORY_MIB)
    assert _said(first, "init") == "systemd"
    assert _said(first, "found") == ""
    assert _said(first, "root") == "/dev/ublkb0 ext4"
    assert "cow=/dev/vdb1" in _said(first, "mounted").split()
    assert int(_said(first, "used")) << 10 < size
    assert _said(lives.live(root, _MEMORY_MIB), "found") == "written"
    assert _digest(iso) == before


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Liar]:
    """A web server with a Debian."""
    with liar(_image(tmp_path, "sysvinit").read_bytes()) as server:
        yield server


def test_sysvinit_from_a_web_server(initramfs: Path, web: Liar, tmp_path: Path) -> None:
    lives = Lives(tmp_path, initramfs, tmp_path / "root.cloop")
    url = web.url.replace("127.0.0.1", "10.0.2.2")
    first = lives.live(url, 2 * _MEMORY_MIB, network=True)
    assert _said(first, "init") == "init"
    assert _said(first, "found") == ""
    assert _said(first, "root") == "/dev/ublkb0 ext4"
    assert "cow=/dev/vda1" in _said(first, "mounted").split()
    second = lives.live(f"{url},via=fuse", 2 * _MEMORY_MIB, network=True)
    assert _said(second, "found") == "written"
    assert _said(second, "root") == "/dev/loop0 ext4"
