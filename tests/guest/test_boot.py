"""Roots from compressed images, in the weather that they may meet: `make test-boot` runs these."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.guest import Drive
from support.guest.life import PATIENCE, Partition, make_data
from support.guest.machine import Machine, Running, boot, start
from support.guest.small import MEMORY_MIB, Lives, check, cowfile_of
from support.liar import Liar, liar
from support.programs import cowcloop, program, run
from support.server import free_port, serving

pytestmark = [pytest.mark.boot, pytest.mark.timeout(2 * PATIENCE)]


@pytest.fixture
def web(small_root: Path) -> Iterator[Liar]:
    """A web server with the image."""
    with liar(small_root.read_bytes()) as server:
        yield server


def _seen_by_the_guest(server: Liar) -> str:
    return server.url.replace("127.0.0.1", "10.0.2.2")


def _medium(folder: Path, *files: Path, size: str = "24M") -> Drive:
    """An ext4 disk with files in its root, and the label LIVE."""
    root = folder / "medium"
    root.mkdir()
    for file in files:
        (root / file.name).write_bytes(file.read_bytes())
    disk = folder / "medium.img"
    run(program("mke2fs", "e2fsprogs"), "-q", "-t", "ext4", "-L", "LIVE", "-d", root, disk, size)
    return Drive(disk, scratch=False)


def _no_root(initramfs: Path, root: str, *drives: Drive) -> Machine:
    """A machine that finds no root, tells why, and reboots."""
    append = f"root=cowcloop:{root} rw"
    machine = boot(
        initramfs,
        drives=drives,
        append=append,
        memory=MEMORY_MIB,
        network="http" in root,
        timeout=PATIENCE,
    )
    assert "Rebooting automatically due to panic= boot argument" in machine.console
    assert "Kernel panic" not in machine.console
    return machine


def test_a_wrong_url_is_named(initramfs: Path, web: Liar) -> None:
    web.lie = lambda number, asked: "missing"
    url = _seen_by_the_guest(web)
    console = _no_root(initramfs, url).console
    assert re.search(f"cowcloop: {url}: .*404", console), console


def test_a_wrong_label_is_waited_for_and_named(initramfs: Path) -> None:
    console = _no_root(initramfs, "LABEL=NONE/root.cloop").console
    assert "cowcloop: waiting for LABEL=NONE\n" in console
    problem = "cowcloop: LABEL=NONE/root.cloop: there is no such device, label or UUID\n"
    assert problem in console


def test_an_image_that_is_another_one(initramfs: Path, small_root: Path, tmp_path: Path) -> None:
    tree = tmp_path / "root.cloop.verity"
    cowcloop("digest", small_root, "--tree", tree)
    medium = _medium(tmp_path, small_root, tree)
    wrong = f"sha256:{'0' * 64}"
    console = _no_root(initramfs, f"LABEL=LIVE/root.cloop,verity={wrong}", medium).console
    assert re.search(r"cowcloop: .*root\.cloop.*digest", console), console


def test_a_damaged_block_is_an_error_of_its_own(
    initramfs: Path, small_root: Path, tmp_path: Path
) -> None:
    image = tmp_path / "root.cloop"
    data = bytearray(small_root.read_bytes())
    # Noise is stored nearly as it is: this is within one of its files.
    at = len(data) // 2
    data[at : at + 64] = bytes(64)
    image.write_bytes(data)
    root = "LABEL=LIVE/root.cloop"
    lives = Lives(initramfs, root, _medium(tmp_path, image))
    lives.append += " test=damaged"
    machine = lives.live()
    # A block may hold the end of one file and the beginning of the next.
    assert len(re.findall("cannot be read: /noise/", machine.results)) in (1, 2)
    assert re.search(r"cowcloopd: error: .*root\.cloop.*block \d+", machine.console), machine


def test_a_full_cowfile(initramfs: Path, small_root: Path, tmp_path: Path) -> None:
    lives = Lives(initramfs, "LABEL=LIVE/root.cloop,cow=ram:3M", _medium(tmp_path, small_root))
    lives.append += " test=full"
    machine = lives.live()
    assert "still there: 12\n" in machine.results
    assert re.search(r"cowcloopd: error: .*memory", machine.console), machine.console


def _synced(machine: Running) -> int:
    """The number of the last file that was told to be synced."""
    return int(re.findall(r"synced (\d+)\.", machine.said().results)[-1])


def test_power_cuts_lose_nothing_that_was_synced(
    initramfs: Path, small_root: Path, tmp_path: Path
) -> None:
    medium = _medium(tmp_path, small_root)
    data = make_data(tmp_path, "48M", "-L", "CHANGES")
    drives = (medium, Drive(data, scratch=False))
    root = "LABEL=LIVE/root.cloop,cow=LABEL=CHANGES"
    append = f"root=cowcloop:{root} rw test=power"
    with start(initramfs, drives=drives, append=append, memory=MEMORY_MIB) as machine:
        machine.wait_for("synced 5.", PATIENCE)
        machine.kill()
        synced = _synced(machine)
    lives = Lives(initramfs, root, *drives)
    lives.append = append
    checked = lives.live().results
    found = re.search(r"checked (\d+) of (\d+)", checked)
    assert found is not None
    # What was being written when the power went may be there, too.
    assert int(found[1]) >= synced
    assert int(found[2]) - int(found[1]) <= 1
    cowfile = cowfile_of(data, tmp_path)
    raw = tmp_path / "device.raw"
    cowcloop("extract", small_root, cowfile, raw)
    # It has no journal: what the power cut has left was mended by the check at the next boot.
    head = run(program("dumpe2fs", "e2fsprogs"), "-h", raw).stdout.decode()
    assert re.search(r"^Filesystem state: +clean$", head, re.MULTILINE), head
    run(program("e2fsck", "e2fsprogs"), "-fn", raw)


def test_in_memory_verified_from_an_iso_file_on_a_stick_by_fuse(
    initramfs: Path, small_root: Path, tmp_path: Path
) -> None:
    disc = tmp_path / "disc"
    (disc / "live").mkdir(parents=True)
    image = disc / "live/root.cloop"
    image.write_bytes(small_root.read_bytes())
    said = cowcloop("digest", image, "--tree", f"{image}.verity").stdout.decode()
    iso = tmp_path / "live.iso"
    run(program("genisoimage", "genisoimage"), "-quiet", "-r", "-o", iso, disc)
    stick = tmp_path / "stick.img"
    with stick.open("wb") as file:
        file.truncate(24 << 20)
    run(program("mkfs.vfat", "dosfstools"), "-n", "STICK", stick)
    run(program("mcopy", "mtools"), "-i", stick, iso, "::live.iso")
    root = f"LABEL=STICK/live.iso:/live/root.cloop,toram,verity={said.split()[0]},via=fuse"
    lives = Lives(initramfs, root, Drive(stick))
    lives.append += " test=places"
    machine = lives.live()
    assert "root /dev/loop" in machine.results
    # Neither the stick nor the ISO file is in use any more.
    (mounted,) = re.findall("mounted (.*)", machine.results)
    assert not {"medium", "iso"} & set(mounted.split()), mounted
    noise = hashlib.sha256()
    debugfs = program("debugfs", "e2fsprogs")
    raw = small_root.with_suffix(".img")
    for number in range(12):
        noise.update(run(debugfs, "-R", f"cat /noise/{number:02}", raw).stdout)
    assert f"noise {noise.hexdigest()}" in machine.results


def test_the_cowfile_on_the_stick_of_the_image(
    initramfs: Path, small_root: Path, tmp_path: Path
) -> None:
    medium = _medium(tmp_path, small_root, size="48M")
    lives = Lives(initramfs, "LABEL=LIVE/root.cloop,cow=medium", medium)
    lives.live()
    assert "found life 1" in lives.live().results
    check(small_root, cowfile_of(medium.image, tmp_path), tmp_path)


def test_the_cowfile_on_a_partition_of_the_stick_with_an_iso_image(
    initramfs: Path, small_root: Path, tmp_path: Path
) -> None:
    """The ISO image is the whole stick to the kernel; the partition lies behind it."""
    disc = tmp_path / "disc"
    disc.mkdir()
    (disc / "root.cloop").symlink_to(small_root)
    changes = make_data(tmp_path, "24M", "-L", "CHANGES")
    stick = tmp_path / "stick.img"
    genisoimage = program("genisoimage", "genisoimage")
    run(genisoimage, "-quiet", "-f", "-r", "-V", "LIVE", "-o", stick, disc)
    begin = 32 << 20
    assert stick.stat().st_size <= begin
    partition = Partition.make(stick, changes, begin)
    root = "LABEL=LIVE/root.cloop,cow=LABEL=CHANGES"
    assert "found \n" in Lives(initramfs, root, Drive(stick, scratch=False)).live().results
    partition.read(changes)
    check(small_root, cowfile_of(changes, tmp_path), tmp_path)


def test_a_session_that_begins_anew_with_each_boot(
    initramfs: Path, small_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "class"
    options = ("--sessions", folder, "--reset-on-boot", "--tcp", str(free_port()))
    with serving(small_root, *options) as server:
        port = server.uri.rpartition(":")[2].strip("/")
        lives = Lives(initramfs, f"nbd://10.0.2.2:{port}/pc17,boot-id", network=True)
        for _ in range(2):
            assert "found \n" in lives.live().results
