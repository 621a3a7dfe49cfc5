"""CDs, sticks and sessions as a stock kernel mounts them: nothing stands in for any of them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from support.guest import Payload, Told
from support.guest.life import PATIENCE, live_once, make_data, make_payload
from support.programs import ROOT, cowcloop, program, run

SCENARIO = Path(__file__).with_name("scenario_media.py")
WORDS = b"the words on the disc\n" * 3000

pytestmark = pytest.mark.timeout(2 * PATIENCE)


@pytest.fixture(scope="module")
def done(shared: Path, chicken: Path) -> Told:
    """One life of the guest."""

    def prepare(folder: Path) -> tuple[Payload, Path]:
        payload = make_payload(folder, chicken)
        shutil.copy(ROOT / "scripts/demo.py", payload.folder)
        _make_media(folder, payload.folder / "images", chicken)
        files = folder / "files"
        files.mkdir()
        _make_vfat(files / "stick.img", 64 << 20)
        return payload, make_data(folder, "192M", "-d", files)

    return live_once(shared / "media", SCENARIO, prepare, systemd=False)


def _make_media(folder: Path, place: Path, chicken: Path) -> None:
    """A CD with the image on it, and compressed images of a CD and of a stick."""
    genisoimage = program("genisoimage", "genisoimage")
    for name in ("cd", "disc"):
        (folder / name).mkdir()
    shutil.copy(chicken, folder / "cd/chicken")
    run(genisoimage, "-quiet", "-r", "-o", place / "cd.iso", folder / "cd")
    (folder / "disc/words.txt").write_bytes(WORDS)
    run(genisoimage, "-quiet", "-r", "-o", folder / "disc.iso", folder / "disc")
    cowcloop("create", folder / "disc.iso", place / "disc.cloop")
    _make_vfat(folder / "stick.raw", 4 << 20)
    cowcloop("create", folder / "stick.raw", place / "stick.cloop")


def _make_vfat(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
    run(program("mkfs.vfat", "dosfstools"), path)


def test_the_scenario_went_through(done: Told) -> None:
    assert done.failed() == {}, done.console


def test_example_2_with_a_cd_and_a_stick(done: Told) -> None:
    code, _, said = done["example mounted"]
    assert code == 0
    # A file of vfat's has no holes.
    assert "the whole device" in said
    unmounted = "cowcloop: /mnt/files: unmounted; everything is on disk\n"
    assert done["example unmounted"] == [0, "", unmounted]
    assert done["example again"][1] == "copied in\n"
    assert json.loads(done["example cowfile"][1])["state"] == "clean"
    assert done["example base"]
    assert done["example check"][0] == 0, done["example check"]
    assert done["stick check"][0] == 0, done["stick check"]


def test_compressed_media_of_other_kinds(done: Told) -> None:
    assert done["disc"][1] == f"{hashlib.sha256(WORDS).hexdigest()}  -\n"
    assert done["stick"][1] == "cut\n"


def test_a_mount_by_nbd_ends_with_its_server(done: Told) -> None:
    code, _, said = done["killed recover"]
    assert code == 1
    assert "no supervisor" in said
    assert "unmount it, and mount it again" in said
    assert "broken" in done["killed listed"][1]
    code, said = done["killed unmounted"]
    assert (code, said.count("\n")) == (0, 1)
    assert "what was not on disk when it ended is lost" in said
    assert done["killed synced"][1] == "synced\n"


def test_a_device_of_a_killed_server_can_be_connected_again(done: Told) -> None:
    assert done["killed in the foreground"] == [[1, 1], [1, 1]]


def test_clients_of_the_kernel_have_sessions(done: Told) -> None:
    assert done["whose"] == ["anna\n", "ben\n"]
    assert done["sessions detached"] == [0, "", ""]
    assert done["cowfiles"] == ["anna.cow", "ben.cow"]
    for name in ("anna", "ben"):
        assert done[f"{name} check"][0] == 0, done[f"{name} check"]


def test_the_demo_has_a_cd_of_its_own(done: Told) -> None:
    code, shown, said = done["demo"]
    assert code == 0, (shown, said)
    assert "$ mount -t iso9660 -o loop,ro chicken.iso cdrom" in shown
    assert "stands in" not in shown
    assert "Done: the base unchanged" in shown
