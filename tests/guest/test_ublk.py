"""Block devices by ublk, in a stock kernel that has it."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import pytest
from support.guest import Payload, Told
from support.guest.life import PATIENCE, live_once, make_data, make_payload
from support.programs import cowcloop, program, run

SCENARIO = Path(__file__).with_name("scenario_ublk.py")

pytestmark = pytest.mark.timeout(2 * PATIENCE)


@pytest.fixture(scope="module")
def done(shared: Path, chicken: Path) -> Told:
    """One life of the guest."""

    def prepare(folder: Path) -> tuple[Payload, Path]:
        return make_payload(folder, chicken), make_data(folder, "256M")

    return live_once(shared / "ublk", SCENARIO, prepare, systemd=False)


def test_the_scenario_went_through(done: Told) -> None:
    assert done.failed() == {}, done.console
    assert done["kernel"] == [0, "", ""]


def test_without_the_driver_its_module_is_named(done: Told) -> None:
    code, _, said = done["no module"]
    assert code == 1
    assert "modprobe ublk_drv" in said
    assert len(said.splitlines()) == 1


def test_what_a_user_types(done: Told) -> None:
    assert done["attached"] == [0, "/dev/ublkb0\n", ""]
    (listed,) = json.loads(done["listed"][1])
    assert listed["device"] == listed["uri"] == "/dev/ublkb0"
    code, _, said = done["detached in use"]
    assert (code, said) == (
        1,
        "cowcloop: /dev/ublkb0 is mounted on /mnt/files: unmount it first\n",
    )
    assert done["synced"] == done["detached"] == [0, "", ""]
    assert done["detached gone"]
    # Without --via it is the first way that there is.
    assert done["mounted via"] == ["ublk"]
    assert done["typed"] == [0, "typed\n", ""]
    code, _, said = done["unmounted"]
    assert (code, said) == (0, "cowcloop: /mnt/files: unmounted; everything is on disk\n")
    assert done["attached wrongly"][0] == 2
    assert "--tcp is for NBD" in done["attached wrongly"][2]
    assert done["listed at last"] == [0, "[]\n", ""]


def test_a_mount_goes_on_with_another_server(done: Told) -> None:
    assert done["recovered"] == [0, "", ""]
    assert done["taken over sync"][0] == 0
    assert done["taken over"][1] == "of the first server\n"
    assert done["taken over end"][0] == 0
    assert json.loads(done["taken over cowfile"][1])["state"] == "clean"


def test_a_device_without_a_cowfile_is_read_only(done: Told, ext2: Path) -> None:
    assert done["read-only whole"] == hashlib.sha256(ext2.read_bytes()).hexdigest()
    assert done["read-only"] == "1\n"
    assert done["read-only write"] == "EPERM"
    assert done["read-only end"] == 0
    assert done["read-only gone"]


def test_the_kernel_knows_the_limits(done: Told, ext2: Path) -> None:
    assert done["limits"] == {
        "logical_block_size": 512,
        "physical_block_size": 4096,
        "optimal_io_size": 65536,
        "fua": 1,
        "rotational": 0,
    }
    assert done["discards"]
    assert done["zeros"]
    assert done["whole"] == hashlib.sha256(ext2.read_bytes()).hexdigest()


def test_servers_that_are_killed_fail_no_request(done: Told) -> None:
    assert done["traffic"] is None
    assert done["stalls"] == 0
    assert done["traffic whole"]
    assert done["traffic end"] == 0
    assert done["traffic again"]
    assert json.loads(done["traffic cowfile"][1])["state"] == "clean"


def test_a_file_system_lives_on(done: Told) -> None:
    assert done["resized"][0] == 0
    assert done["files size"] > 64 << 20
    assert done["files"] == [True, []]
    assert done["files check"][0] == 0, done["files check"]
    assert done["files end"] == 0


def test_a_user_may_have_a_device(done: Told, ext2: Path) -> None:
    code, _, said = done["not let"]
    assert code == 1
    assert "this user may not make block devices" in said
    assert done["own whole"] == hashlib.sha256(ext2.read_bytes()).hexdigest()
    assert done["own traffic"] is None
    assert done["own end"] == 0
    assert done["own again"]


def test_what_a_user_has_made_ends_with_its_server(done: Told) -> None:
    code, _, said = done["own left"]
    assert code == 1
    assert "remove it with: cowcloopd remove /dev/ublkb" in said
    assert done["own removed"] == [0, "", ""]
    assert done["own removed gone"]
    assert done["own supervised"] == 128 + signal.SIGKILL
    assert done["own supervised gone"]


def test_a_clean_end_under_a_mount_loses_nothing(done: Told) -> None:
    assert done["mounted end"] == 0
    assert done["mounted last"][1] == "not synced by its writer\n"


def test_a_device_without_a_supervisor_that_listens_is_removed(done: Told) -> None:
    code, _, said = done["unheard"]
    assert code == 1
    assert "the supervisor does not listen" in said
    assert done["unheard gone"]


def test_a_device_is_not_taken_over_by_one_of_something_else(done: Told) -> None:
    for device in ("read-only", "written"):
        for other in ("image", "cowfile", "memory"):
            code, _, said = done[f"{device}: {other}"]
            assert (code, device, other) == (1, device, other)
            assert "is the device of another image, or of other cowfiles" in said
        code, _, said = done[f"{device}: missing"]
        assert (code, device) == (1, device)
        assert "/tmp/missing.cow: " in said
        assert "No such file or directory" in said
        assert done[f"{device}: removed"] == [0, "", ""]


def test_a_device_that_is_left_behind_can_be_removed(done: Told) -> None:
    assert done["no such device"][0] == 1
    assert "/dev/ublkb77: there is no such device" in done["no such device"][2]
    assert done["removed"] == [0, "", ""]
    assert done["removed gone"]
    assert done["left flushed"][1] == "flushed\n"
    assert done["left check"][0] == 0, done["left check"]


def test_what_was_synced_outlives_the_machine(done: Told, shared: Path, tmp_path: Path) -> None:
    assert done["cut"] == [True]
    data, cow, raw = (tmp_path / name for name in ("data", "cut.cow", "raw"))
    run("cp", "--sparse=always", shared / "ublk/data.img", data)
    e2fsck, debugfs = program("e2fsck", "e2fsprogs"), program("debugfs", "e2fsprogs")
    # The disk's own file system has a journal, the one on the device has none.
    run(e2fsck, "-fy", data, expect=None)
    run(debugfs, "-R", f"dump /cut.cow {cow}", data)
    assert json.loads(cowcloop("info", cow, "--json").stdout)["state"] == "in use or crashed"
    cowcloop("extract", shared / "ublk/payload/images/base.cloop", cow, raw)
    assert run(e2fsck, "-fy", raw, expect=None).returncode in (0, 1)
    assert run(debugfs, "-R", "cat synced", raw).stdout == b"synced\n" * 5000
