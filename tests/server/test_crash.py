"""The crash promise on the real server: killed at random moments under several writers.

Each writer stamps the sectors that it owns with its number and a counter, and notes
what was acknowledged. After SIGKILL, a sector may hold the value that it had at the
last acknowledged flush or any that was written to it since, and nothing else.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import cloop, cowfile, nbdclient
from support.programs import program, run
from support.server import Server, listed, serving, wait_until

SECTOR = 512
SECTORS = 4096
SIZE = SECTORS * SECTOR
WRITERS = 3
#: Owners change every three sectors, so that 1 KiB blocks and pages are shared.
RUN = 3
ROUNDS = int(os.environ.get("COWCLOOP_CRASH_ROUNDS", "100"))
ZEROS = b"\0" * SECTOR


@dataclass
class Sector:
    """What a sector may read as: (counter of its owner, content), oldest first."""

    values: list[tuple[int, bytes]] = field(default_factory=list)


class Model:
    """Every value that each sector may hold."""

    def __init__(self, plain: bytes) -> None:
        self.lock = threading.Lock()
        self.sectors = [Sector([(0, plain[at : at + SECTOR])]) for at in range(0, SIZE, SECTOR)]
        #: Per writer: the counter of its newest acknowledged and of its newest durable request.
        self.acknowledged = [0] * WRITERS
        self.durable = [0] * WRITERS
        self.issued = [0] * WRITERS

    def begin(self, writer: int, sectors: range, data: bytes | None) -> int:
        """Notes a request before it is sent: from now on its values may appear."""
        with self.lock:
            self.issued[writer] += 1
            counter = self.issued[writer]
            for position, number in enumerate(sectors):
                part = ZEROS if data is None else data[position * SECTOR : (position + 1) * SECTOR]
                self.sectors[number].values.append((counter, part))
            return counter

    def check(self, device: bytes) -> None:
        """Fails where a sector holds what it must not; then takes it as the new start."""
        for number, sector in enumerate(self.sectors):
            owner = number // RUN % WRITERS
            found = device[number * SECTOR : (number + 1) * SECTOR]
            newest_durable = max(
                position
                for position, (counter, _) in enumerate(sector.values)
                if counter <= self.durable[owner]
            )
            allowed = [content for _, content in sector.values[newest_durable:]]
            if found not in allowed:
                known = [c for c, content in sector.values if content == found]
                pytest.fail(
                    f"sector {number} of writer {owner} holds {found[:16].hex()} "
                    f"(its requests {known}); durable up to {self.durable[owner]}, "
                    f"written by {[c for c, _ in sector.values]}"
                )
            sector.values = [(0, found)]
        for counters in (self.acknowledged, self.durable, self.issued):
            counters[:] = [0] * WRITERS


def _stamp(writer: int, counter: int, count: int) -> bytes:
    return struct.pack("<QQ", writer + 1, counter).ljust(32, b"\xc3") * (count * SECTOR // 32)


def _write(
    handle: Any, model: Model, writer: int, rng: random.Random, stop: threading.Event
) -> None:
    """Writes, discards and flushes until the server is gone."""
    nbd = nbdclient.module()
    runs = range(writer, SECTORS // RUN, WRITERS)
    try:
        while not stop.is_set():
            first = rng.choice(runs) * RUN
            skip = rng.randrange(RUN)
            sectors = range(first + skip, first + rng.randint(skip + 1, RUN))
            kind = rng.random()
            offset, length = sectors.start * SECTOR, len(sectors) * SECTOR
            if kind < 0.15:
                counter = model.begin(writer, sectors, None)
                (handle.trim if kind < 0.08 else handle.zero)(length, offset)
            else:
                data = _stamp(writer, model.issued[writer] + 1, len(sectors))
                counter = model.begin(writer, sectors, data)
                fua = kind > 0.97
                handle.pwrite(data, offset, nbd.CMD_FLAG_FUA if fua else 0)
                if fua:
                    with model.lock:
                        model.durable[writer] = max(model.durable[writer], counter)
            with model.lock:
                model.acknowledged[writer] = counter
            # Writer 0 never flushes: the others' flushes must cover its requests too.
            if writer and rng.random() < 0.05:
                with model.lock:
                    covered = list(model.acknowledged)
                handle.flush()
                with model.lock:
                    for each, counter in enumerate(covered):
                        model.durable[each] = max(model.durable[each], counter)
    except nbd.Error:
        pass  # killed


def _round(image: Path, cow: Path, model: Model, rng: random.Random) -> int:
    """One life of the server; how many requests were acknowledged."""
    server = Server(image, cow)
    try:
        inside = server.nbdkit_pid()
        reader = nbdclient.connect(server.uri)
        model.check(nbdclient.read_all(reader))
        reader.flush()
        stop = threading.Event()
        threads = [
            threading.Thread(
                target=_write,
                args=(
                    nbdclient.connect(server.uri),
                    model,
                    writer,
                    random.Random(rng.random()),
                    stop,
                ),
            )
            for writer in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.0, 0.2))
        os.kill(inside, signal.SIGKILL)
        stop.set()
        for thread in threads:
            thread.join()
        assert server.wait() == 1
        return sum(model.acknowledged)
    finally:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("layout", ["64-little", "32-big"])
def test_a_hundred_kills(tmp_path: Path, layout: str) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print("seed", seed)
    rng = random.Random(seed)
    plain = cloop.sample(SIZE, 4096, 8)
    image, cow = tmp_path / "i", tmp_path / "c"
    image.write_bytes(cloop.build(plain, 4096))
    if layout != "64-little":
        cow.write_bytes(cowfile.build(plain, {}, layout))
    model = Model(plain)
    requests = sum(_round(image, cow, model, rng) for _ in range(ROUNDS // 2))
    assert requests > ROUNDS * 5, "the writers hardly wrote"
    with serving(image, cow) as server:
        device = nbdclient.read_all(nbdclient.connect(server.uri))
    model.check(device)
    # Closed cleanly after all that, the original driver takes it.
    assert cowfile.original_refuses(cow, plain) is None
    assert cowfile.merged(plain, cowfile.parse(cow).blocks) == device


def test_the_checker_can_fail() -> None:
    """A model that never fails proves nothing."""
    plain = cloop.sample(SIZE, 4096, 8)
    model = Model(plain)
    data = _stamp(0, 1, 1)
    model.begin(0, range(1), data)
    model.check(data + plain[SECTOR:])
    model.begin(0, range(1), _stamp(0, 1, 1))
    model.begin(0, range(1), _stamp(0, 2, 1))
    model.durable[0] = 2
    for lost in (plain, _stamp(0, 1, 1) + plain[SECTOR:], b"?" * SECTOR + plain[SECTOR:]):
        with pytest.raises(pytest.fail.Exception, match="sector 0"):
            model.check(lost)


def test_fio_state_across_a_kill(tmp_path: Path, chicken: Path) -> None:
    """What fio wrote and flushed before a kill verifies after it."""
    cow = tmp_path / "c"
    fio = program("fio", "fio")
    job = [
        *("--name=v", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--size=4m", "--iodepth=8"),
        *("--verify=crc32c", "--randseed=7", "--verify_state_save=0", "--verify_fatal=1"),
    ]
    server = Server(chicken, cow)
    uri = f"--uri={server.uri}"
    run(fio, *job, "--do_verify=0", "--end_fsync=1", uri, cwd=tmp_path)
    nbdclient.connect(server.uri).flush()
    os.kill(server.nbdkit_pid(), signal.SIGKILL)
    assert server.wait() == 1
    with serving(chicken, cow) as again:
        run(fio, *job, "--verify_only", f"--uri={again.uri}", cwd=tmp_path)


def _writes() -> int:
    """Writes that the cowfile of the one served device took."""
    (device,) = listed()
    writes = device["cowfiles"][-1]["writes"]
    assert isinstance(writes, int)
    return writes


def test_fio_is_interrupted_by_a_kill(tmp_path: Path, chicken: Path) -> None:
    """Every write over flushed blocks that fio saw acknowledged is there: only a power cut may
    take it back. fio's own state file says which those are."""
    cow = tmp_path / "c"
    fio = program("fio", "fio")
    job = [
        *("--name=v", "--ioengine=nbd", "--bs=4k", "--size=4m", "--iodepth=1"),
        *("--verify=crc32c", "--verify_fatal=1", "--output-format=json"),
    ]
    server = Server(chicken, cow)
    fill = ("--rw=write", "--do_verify=0", "--end_fsync=1", "--verify_state_save=0")
    run(fio, *job, *fill, f"--uri={server.uri}", cwd=tmp_path)
    nbdclient.connect(server.uri).flush()
    inside, filled = server.nbdkit_pid(), _writes()
    again = ["--rw=randwrite", "--randseed=11"]
    writing = subprocess.Popen(
        [fio, *job, *again, "--do_verify=0", "--rate_iops=400", f"--uri={server.uri}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: _writes() > filled + 150, "fio to write")
    os.kill(inside, signal.SIGKILL)
    try:
        assert writing.wait(60) != 0
    finally:
        writing.kill()
    assert server.wait() == 1
    verify = [*job, *again, "--verify_only", "--verify_state_load=1"]
    with serving(chicken, cow) as alive_again:
        verify.append(f"--uri={alive_again.uri}")
        run(fio, *verify, "--output=verified", cwd=tmp_path)
        done = json.loads((tmp_path / "verified").read_text())
        assert done["jobs"][0]["read"]["total_ios"] > 100, "the state was not used"
        # And it can fail.
        nbdclient.connect(alive_again.uri).pwrite(b"lost" * (1 << 18), 1 << 20)
        assert run(fio, *verify, cwd=tmp_path, expect=None).returncode != 0


def test_a_crashed_cowfile_is_not_half_repaired_by_the_old_tools(tmp_path: Path) -> None:
    """The original driver refuses a file after our crash, and takes it after our next close."""
    plain = cloop.sample(SIZE, 4096, 8)
    image, cow = tmp_path / "i", tmp_path / "c"
    image.write_bytes(cloop.build(plain, 4096))
    server = Server(image, cow)
    handle = nbdclient.connect(server.uri)
    handle.pwrite(b"x" * 5000, 300)
    handle.flush()
    handle.pwrite(b"y" * 5000, 9300)
    os.kill(server.nbdkit_pid(), signal.SIGKILL)
    server.wait()
    assert cowfile.original_refuses(cow, plain) is not None
    with serving(image, cow) as again:
        assert nbdclient.connect(again.uri).pread(5000, 300) == b"x" * 5000
    assert cowfile.original_refuses(cow, plain) is None
