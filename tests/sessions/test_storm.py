"""Many machines at once: each block is inflated once, and whatever is done, all go on."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cloop, cowfile, nbdclient
from support.crowd import Client, Crowd, Work
from support.programs import Argument, cowcloop, cowcloop_path, mannered, one_line
from support.server import Server, listed, serving
from support.sessions import join

MACHINES = 60
BLOCK = 64 << 10
COUNT = 40
PLAIN = cloop.sample(COUNT * BLOCK, BLOCK, 5)
#: What a machine writes at a time: at the beginning of its device, and at the end.
UNIT = 1024
LAST = len(PLAIN) - UNIT


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK))
    return path


def boot(number: int) -> Work:
    """Reads all of the image, in requests of many sizes, as kernels make them."""
    lengths = (4096, 32768, 131072, 4096, 65536)
    at = 0
    while at < len(PLAIN):
        length = min(lengths[(at // 4096 + number) % len(lengths)], len(PLAIN) - at)
        assert (yield at, length) == PLAIN[at : at + length], f"{number} at {at}"
        at += length


def test_each_block_is_inflated_once_for_sixty_machines(image: Path, folder: Path) -> None:
    with serving(image, "--sessions", folder, "--cache", "64M") as server:
        names = [f"pc{number}" for number in range(MACHINES)]
        works = [Client(join(server, name), boot(number)) for number, name in enumerate(names)]
        crowd = Crowd(dict(zip(names, works)))
        crowd.finish()
        (device,) = listed()
        inflated = device["cache"]["misses"]
        assert 0 < inflated <= COUNT * 1.1, f"{inflated} times for {COUNT} blocks"
        for client in crowd.clients.values():
            client.handle.shutdown()


def work(number: int) -> Work:
    """A machine's day: counts at both ends of the device, and reads between them."""
    places = random.Random(number)
    count = 0
    while True:
        count += 1
        unit = count.to_bytes(8, "little") * (UNIT // 8)
        yield 0, unit
        yield LAST, unit
        for _ in range(4):
            at = places.randrange(BLOCK, LAST - BLOCK)
            length = places.choice((512, 4096, 65536))
            assert (yield at, length) == PLAIN[at : at + length], f"{number} at {at}"
        assert (yield 0, UNIT) == unit


def copies() -> Work:
    """A machine that always has all of the image copied."""
    while True:
        assert (yield 0, len(PLAIN)) == PLAIN


def until_cut(day: Work) -> Work:
    """The same, until the session is no more."""
    with pytest.raises(nbdclient.module().Error):
        yield from day


def anew(day: Work) -> Work:
    """A machine that finds the image as it is."""
    for at in (0, LAST):
        assert (yield at, UNIT) == PLAIN[at : at + UNIT]
    yield from day


class Classroom(Crowd):
    """Machines at work, and one beside them that leaves nothing to the others if it can."""

    def __init__(self, server: Server) -> None:
        super().__init__({})
        self._server = server
        for number in range(MACHINES):
            day = work(number)
            self.enter(f"pc{number}", until_cut(day) if number == 1 else day)
        for number in range(8):
            self.clients[f"greedy {number}"] = Client(join(server, "greedy"), copies())

    def enter(self, name: str, day: Work) -> None:
        """A machine begins its day."""
        self.clients[name] = Client(join(self._server, name), day)

    def during(self, command: str, *arguments: Argument, expect: int = 0) -> str:
        """A command on the sessions; all machines go on. What it has said on standard error."""
        before = {name: client.answered for name, client in self.clients.items()}
        words = [cowcloop_path(), "session", command, self._server.uri, *map(str, arguments)]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None:
            self.step(20)
        said = process.communicate()[1].decode()
        mannered(said)
        assert process.returncode == expect, said

        def each() -> Iterator[bool]:
            for name, client in self.clients.items():
                yield client.ended or client.answered >= before[name] + 3

        self.until(lambda: all(each()), f"answers for every machine after session {command}")
        return said


def counts(*device: Argument) -> tuple[int, int]:
    """What a machine has counted to, at the beginning of its device and at the end."""
    data = cowcloop("extract", *device, "-").stdout
    assert data[UNIT:LAST] == PLAIN[UNIT:LAST]
    first, last = (int.from_bytes(data[at : at + 8], "little") for at in (0, LAST))
    return first, last


def test_sessions_are_copied_reset_and_committed_and_all_others_go_on(
    image: Path, folder: Path, tmp_path: Path
) -> None:
    copy, new = tmp_path / "copy.cow", tmp_path / "new.cloop"
    # A cache for a tenth of the image: something has to be inflated all the time.
    with serving(image, "--sessions", folder, "--cache", "256K", quiet=False) as server:
        room = Classroom(server)
        room.during("snapshot", "pc0", copy)
        one_line(room.during("reset", "pc1", expect=1), ("pc1", "--force"))
        assert len(room.at_work()) == MACHINES + 8
        room.during("reset", "pc1", "--force")
        assert [name for name, client in room.clients.items() if client.ended] == ["pc1"]
        room.clients["pc1"].handle.shutdown()
        room.enter("pc1", anew(work(1)))
        room.during("commit", "pc2", new)
        room.during("snapshot", "pc0", copy, "--force")
        assert len(room.at_work()) == MACHINES + 8
        for client in room.clients.values():
            client.handle.shutdown()
    for device in ((image, copy), (new,)):
        first, last = counts(*device)
        # It is that of one moment.
        assert first - last in {0, 1}
        assert first > 0
    for number in range(MACHINES):
        path = folder / f"pc{number}.cow"
        assert cowfile.original_refuses(path, PLAIN) is None
        assert set(cowfile.parse(path).blocks) == {0, LAST // UNIT}
    assert not (folder / "greedy.cow").exists()
