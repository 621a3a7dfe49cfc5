"""Images at URLs that are mounted, written to, and mounted again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import iso
from support.liar import liar
from support.mounts import DONE, WAYS
from support.programs import cache_home, cowcloop, refused
from support.server import listed, wait_until

pytestmark = pytest.mark.usefixtures("fuse", "loop")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of the test's own."""
    with cache_home(tmp_path) as home:
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        yield


def tree(place: Path) -> dict[str, bytes]:
    """The files of a mount, and what is in them."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("via", WAYS)
@pytest.mark.usefixtures("cache")
def test_it_is_written_and_mounted_again(
    via: str, chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    cowcloop("mount", "--via", via, chicken, place)
    want = tree(place)
    cowcloop("umount", place)
    assert want
    with liar(chicken.read_bytes()) as server:
        url = server.url + "?token=t0ken"
        mounting = ("mount", "--via", via, url, tmp_path / "c", place)
        cowcloop(*mounting)
        assert listed()[0]["image"] == server.url + "?..."
        assert tree(place) == want
        (place / "written").write_bytes(b"far away" * 10_000)
        assert DONE in cowcloop("umount", place).stderr.decode()
        cowcloop(*mounting)
        assert tree(place) == {**want, "written": b"far away" * 10_000}
        cowcloop("umount", place)
        # Read-only as well, and by what is kept alone.
        cowcloop("pull", url)
        cowcloop("mount", "--via", via, "--offline", url, place)
        assert tree(place) == want
        cowcloop("umount", place)
    assert left() == []


@pytest.mark.usefixtures("cache")
def test_an_image_in_a_disc_far_away(
    chicken: Path, place: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    folder = tmp_path / "tree"
    (folder / "KNOPPIX").mkdir(parents=True)
    (folder / "KNOPPIX/KNOPPIX").write_bytes(chicken.read_bytes())
    disc = iso.make(folder, tmp_path / "cd.iso", "-R")
    with liar(disc.read_bytes()) as server:
        mounting = ("mount", server.url + ":/KNOPPIX/KNOPPIX", tmp_path / "c", place)
        cowcloop(*mounting)
        want = tree(place)
        assert want
        (place / "written").write_bytes(b"in a disc")
        cowcloop("umount", place)
        cowcloop(*mounting)
        assert tree(place) == {**want, "written": b"in a disc"}
        cowcloop("umount", place)
        refused("mount", server.url + ":/KNOPPIX/NOTHING", place, says="no such file in the ISO")
    assert left() == []


@pytest.mark.usefixtures("cache", "sends_again")
def test_another_server_goes_on_with_it(chicken: Path, place: Path, tmp_path: Path) -> None:
    """It finds the URL with its secrets, which no command line has."""
    with liar(chicken.read_bytes()) as server:
        server.lets_in = lambda path, _: path.endswith("?token=t0ken")
        url = server.url + "?token=t0ken"
        cowcloop("mount", "--via", "fuse", url, tmp_path / "c", place)
        (place / "written").write_bytes(b"by the first")
        os.kill(listed()[0]["pid"], signal.SIGKILL)
        wait_until(lambda: listed()[0].get("restarts") == 1, "another server")
        assert (place / "written").read_bytes() == b"by the first"
        assert len(tree(place)) > 1
        cowcloop("umount", place)


@pytest.mark.usefixtures("cache")
def test_nothing_is_there(place: Path, left: Callable[[], list[str]]) -> None:
    with liar(b"") as server:
        server.lets_in = lambda path, _: False
        refused("mount", server.url, place, says=("a.img", "403 Forbidden"))
        url = server.url
    refused("mount", url, place, "--timeout", "1", says=("a.img", "refused"))
    assert left() == []
