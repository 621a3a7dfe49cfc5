"""A reboot in good order, and the units of contrib/systemd, in a Debian with systemd."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.guest import Payload, Told
from support.guest.life import PATIENCE, live_once, make_data
from support.programs import ROOT, cowcloop, program, run

SCENARIO = Path(__file__).with_name("scenario_reboot.py")

pytestmark = pytest.mark.timeout(2 * PATIENCE)


class Done:
    """What the guest has told, and what its /data holds."""

    def __init__(self, told: Told, base: Path, data: Path) -> None:
        self.told = told.results
        self.console = told.console
        self.base = base
        self.data = data

    def listed(self) -> list[dict[str, Any]]:
        """The devices just before the reboot."""
        devices: list[dict[str, Any]] = json.loads(self.told["listed"][1])
        return devices

    def read(self, name: str, folder: Path) -> str:
        """The file that was written through a cowfile, which must be closed and hold no damage."""
        debugfs = program("debugfs", "e2fsprogs")
        cow, raw = folder / Path(name).name, folder / "raw"
        run(debugfs, "-R", f"dump /{name} {cow}", self.data)
        assert json.loads(cowcloop("info", cow, "--json").stdout)["state"] == "clean"
        cowcloop("extract", self.base, cow, raw)
        run(program("e2fsck", "e2fsprogs"), "-fn", raw)
        return run(debugfs, "-R", "cat /new.txt", raw).stdout.decode()


@pytest.fixture(scope="module")
def done(shared: Path, ext2: Path) -> Done:
    """One life of the guest: all tests here look at it, in whatever process they run."""

    def prepare(folder: Path) -> tuple[Payload, Path]:
        return _prepare(folder, ext2), make_data(folder, "64M")

    folder = shared / "reboot"
    told = live_once(folder, SCENARIO, prepare)
    return Done(told, folder / "payload/images/base.cloop", folder / "data.img")


def _prepare(folder: Path, ext2: Path) -> Payload:
    """The payload."""
    payload = Payload(folder / "payload")
    place = payload.folder / "images"
    place.mkdir()
    cowcloop("create", ext2, place / "base.cloop")
    disc = folder / "disc"
    disc.mkdir()
    (disc / "words.txt").write_text("words\n")
    genisoimage = program("genisoimage", "genisoimage")
    run(genisoimage, "-quiet", "-r", "-o", folder / "disc.iso", disc)
    cowcloop("create", folder / "disc.iso", place / "disc.cloop")
    shutil.copytree(ROOT / "contrib/systemd", payload.folder / "units")
    return payload


@pytest.mark.parametrize(
    ("cowfile", "written"),
    [
        # By the kernel's NBD, from a session that was over; what was written last was written by
        # a program in another session when that was ended.
        ("mounted.cow", "last words\n"),
        ("looped.cow", "last words\n"),
        # Mounted from the attached device by hand.
        ("attached.cow", "last words\n"),
        # By fuse2fs, in a session that was still there.
        ("alice/user.cow", "last words\n"),
        # The server goes on until the last kill, as what its client does is not known.
        ("by-hand.cow", "written through a client of one's own\n"),
    ],
)
def test_a_reboot_loses_nothing(cowfile: str, written: str, done: Done, tmp_path: Path) -> None:
    assert done.told.get("listed", [1])[0] == 0, (done.told, done.console)
    assert done.told["alice"] == ""
    assert done.read(cowfile, tmp_path) == written, done.console


def test_the_cowfiles_file_system_is_unmounted_after_them(done: Done) -> None:
    head = run(program("dumpe2fs", "e2fsprogs"), "-h", done.data).stdout.decode()
    assert "needs_recovery" not in head


def test_each_program_has_a_unit_of_its_own(done: Done) -> None:
    words = done.told["systemd's units"][1].split()
    scopes = [word.rpartition("-")[2] for word in words if word.endswith(".scope")]
    keepers = [word for word in words if word.startswith("cowcloop-") and "service" in word]
    assert sorted(scopes) == ["cowcloopd.scope", *["nbdkit.scope"] * 4]
    assert len(keepers) == 5
    assert "blockdev@dev-nbd8.target" in words


def test_the_kernels_nbd_and_iso9660(done: Done) -> None:
    assert done.told["disc"] == [0, "words.txt\n", ""]
    (mounted,) = (each for each in done.listed() if each["mount"] == "/mnt/mounted")
    assert (mounted["via"], mounted["device"]) == ("nbd", "/dev/nbd0")


def test_a_unit_has_started_when_clients_can_connect(done: Done, ext2: Path) -> None:
    assert done.told["unit"] == [0, f"{ext2.stat().st_size}\n", ""]
    assert done.told["unit status"][1].startswith("serving nbd+unix:///")
    assert done.told["activated"] == [0, f"{ext2.stat().st_size}\n", ""]
    # Both kinds of unit, one beside the other.
    assert done.told["unit again"] == [0, "", ""]


def test_a_unit_whose_server_is_killed_goes_on(done: Done) -> None:
    """A client that reconnects sees no error, and all that was acknowledged, flushed or not."""
    assert done.told["unit killed"] == [0, None]
    assert done.told["unit killed whole"]
    assert done.told["unit restarts"] == [0, "2\n", ""]


def test_a_missing_image_is_no_start(done: Done) -> None:
    assert done.told["absent image"][0] != 0
    assert "/srv/cowcloop/absent.cloop: cannot open the image" in done.told["journal"][1]


def test_root_finds_the_device_of_a_unit(done: Done) -> None:
    code, listed, said = done.told["unit listed"]
    assert (code, said) == (0, "")
    (device,) = json.loads(listed)
    assert device["socket"] == "/run/cowcloop-chicken/nbd.sock"
    assert device["cowfiles"][0]["state"] == "clean"
    assert done.told["unit synced"] == [0, "", ""]
    assert done.told["unit snapshot"] == [0, "", ""]
    code, _, said = done.told["unit snapshot elsewhere"]
    assert code == 1
    assert said.endswith(": name a file beside the cowfile\n")
    # systemd ends the unit that it started, but by name it can be ended here.
    assert done.told["unit after detach --all"] == [0, "active\n", ""]
    assert done.told["unit detached"] == [0, "", ""]
    assert "ActiveState=inactive" in done.told["unit after detach"][1]
    assert "Result=success" in done.told["unit after detach"][1]


def test_the_scenario_went_through(done: Done) -> None:
    assert [name for name in done.told if name.startswith("failed")] == []
