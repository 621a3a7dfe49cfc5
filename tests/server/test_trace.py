"""Traces: what was read first is noted, and made ready for the next client."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import cowcloop as package
import pytest
from support import cloop, nbdclient
from support.crowd import read_together
from support.iso import make
from support.programs import cowcloop, refused
from support.server import Server, attach, listed, serving, wait_until
from support.sessions import join

BLOCK = 64 << 10
COUNT = 40
#: The blocks that the first client reads, in its order.
ORDER = [7, 3, 30, 31, 32, 0]
#: What the image holds.
PLAIN = cloop.sample(COUNT * BLOCK, BLOCK)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "t.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK, level=1))
    return path


def read(uri: str, blocks: list[int]) -> None:
    """A client reads a little of each block, from its middle on."""
    handle = nbdclient.connect(uri)
    for block in blocks:
        at = block * BLOCK + 1024
        assert bytes(handle.pread(512, at)) == PLAIN[at : at + 512]
    handle.shutdown()


def record(image: Path, trace: Path, blocks: list[int] = ORDER) -> list[dict[str, int]]:
    """The runs of a trace of reads of these blocks, each twice."""
    with serving(image, "--record-trace", trace, "--prefetch", "none") as server:
        read(server.uri, [*blocks, *blocks])
    return runs_of(trace)


def runs_of(trace: Path) -> list[dict[str, int]]:
    """The runs in a file, which is of the image."""
    lines = trace.read_text().splitlines()
    header = json.loads(lines[0])
    assert header["size"] == COUNT * BLOCK
    assert header["block_size"] == BLOCK
    return [json.loads(line) for line in lines[1:]]


def blocks_of(runs: list[dict[str, int]]) -> list[int]:
    return [run["block"] + number for run in runs for number in range(run["count"])]


def misses() -> int:
    return int(listed()[0]["cache"]["misses"])


def test_the_first_reads_are_noted_in_their_order_and_once(image: Path, tmp_path: Path) -> None:
    runs = record(image, tmp_path / "new")
    assert blocks_of(runs) == ORDER
    times = [run["ms"] for run in runs]
    assert times == sorted(times)
    # A trace is replaced by a new one, but not by one in which nothing is.
    assert blocks_of(record(image, tmp_path / "new", [5, 6])) == [5, 6]
    assert blocks_of(record(image, tmp_path / "new", [])) == [5, 6]
    assert record(image, tmp_path / "empty", []) == []


@pytest.mark.parametrize("end", ["TERM", "INT", "detach"])
def test_a_trace_is_there_whole_when_the_server_has_ended(
    image: Path, tmp_path: Path, end: str
) -> None:
    trace = tmp_path / "new"
    if end == "detach":
        uri = attach(image, tmp_path / "c.cow", "--record-trace", trace)
        read(uri, ORDER)
        assert not trace.exists()
        cowcloop("detach", uri)
    else:
        server = Server(image, "--record-trace", trace)
        read(server.uri, ORDER)
        assert not trace.exists()
        assert server.stop(getattr(signal, f"SIG{end}")) == 0
        assert server.errors == ""
    assert blocks_of(runs_of(trace)) == ORDER


def test_a_server_that_is_killed_leaves_the_old_trace(image: Path, tmp_path: Path) -> None:
    trace = tmp_path / "new"
    record(image, trace)
    before = trace.read_bytes()
    server = Server(image, "--record-trace", trace)
    read(server.uri, [20])
    os.kill(server.nbdkit_pid(), signal.SIGKILL)
    server.wait()
    assert trace.read_bytes() == before


def test_writes_and_sessions_read_the_image_too(image: Path, tmp_path: Path) -> None:
    trace, folder = tmp_path / "new", tmp_path / "sessions"
    folder.mkdir()
    with serving(image, "--sessions", folder, "--record-trace", trace) as server:
        first, second = join(server, "a"), join(server, "b")
        first.pread(512, 9 * BLOCK)
        second.pread(512, 9 * BLOCK)
        # The rest of a block that is written in part comes from the image.
        second.pwrite(b"x" * 512, 12 * BLOCK)
        second.pread(512, 14 * BLOCK)
        # What lies in a cowfile is not read of the image.
        second.pwrite(b"x" * 65536, 15 * BLOCK)
        second.pread(512, 15 * BLOCK)
        first.shutdown()
        second.shutdown()
    noted = blocks_of(runs_of(trace))
    # The new cowfile's fingerprint is made of the beginning.
    assert [block for block in noted if block > 0] == [9, 12, 14]


def test_a_trace_beside_the_image_is_made_ready(image: Path) -> None:
    record(image, image.with_name("t.img.trace"))
    with serving(image) as server:
        wait_until(lambda: misses() == len(ORDER), "the trace to be replayed")
        read(server.uri, ORDER)
        assert misses() == len(ORDER), "all of it was in the cache"
        read(server.uri, [20])
        assert misses() == len(ORDER) + 1


def test_small_blocks_that_a_trace_groups_are_all_made_ready(tmp_path: Path) -> None:
    small = tmp_path / "small.img"
    small.write_bytes(cloop.build(random.Random(2).randbytes(COUNT * BLOCK), 4096, level=1))
    with serving(small, "--record-trace", tmp_path / "small.img.trace") as server:
        read_together([nbdclient.connect(server.uri)], [b * BLOCK for b in ORDER], 512)
    assert blocks_of(runs_of(tmp_path / "small.img.trace")) == ORDER
    each = len(ORDER) * BLOCK // 4096
    with serving(small) as server:
        wait_until(lambda: misses() == each, "the trace to be replayed")
        ends = [(block + 1) * BLOCK - 2048 for block in ORDER]
        read_together([nbdclient.connect(server.uri)], ends, 512)
        assert misses() == each, "all of it was in the cache"


def test_the_trace_of_an_image_in_a_disc_lies_beside_the_disc(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "T.IMG").write_bytes(image.read_bytes())
    (folder / "U.IMG").write_bytes(cloop.build(cloop.sample(BLOCK * 3, BLOCK, 5), BLOCK))
    iso = make(folder, tmp_path / "cd.iso", "-R")
    record(image, tmp_path / "cd.iso.trace")
    with serving(f"{iso}:/T.IMG"):
        wait_until(lambda: misses() == len(ORDER), "the trace to be replayed")
    # Another image of the disc has none, and that is no news.
    with serving(f"{iso}:/U.IMG") as server:
        nbdclient.connect(server.uri).pread(512, 0)


def test_a_trace_is_named_or_left_alone(image: Path, tmp_path: Path) -> None:
    beside = image.with_name("t.img.trace")
    record(image, beside)
    named = tmp_path / "named"
    named.write_text("".join(beside.read_text().splitlines(keepends=True)[:2]))
    with serving(image, "--trace", named, "--rate", "100M"):
        wait_until(lambda: misses() == 1, "the trace that is named to be replayed")
    with serving(image, "--prefetch", "none") as server:
        read(server.uri, [20])
        assert misses() == 1


def test_the_python_api_takes_the_options(image: Path, tmp_path: Path) -> None:
    trace = tmp_path / "new"
    with package.serve(image, record_trace=trace, prefetch="none") as server:
        read(server.uri, ORDER)
    assert blocks_of(runs_of(trace)) == ORDER
    with package.serve(image, trace=trace, rate="1G"):
        wait_until(lambda: misses() == len(ORDER), "the trace to be replayed")


def _of_another(trace: Path) -> None:
    lines = trace.read_text().splitlines(keepends=True)
    header = {**json.loads(lines[0]), "identity": "00" * 32, "image": "an\x1b[31mother"}
    trace.write_text("".join([json.dumps(header) + "\n", *lines[1:]]))


def _damaged(trace: Path) -> None:
    lines = trace.read_text().splitlines()
    beyond = '{"ms":1,"block":99,"count":9}'
    trace.write_text("\n".join([lines[0], "nonsense", *lines[1:], beyond]))


def _cut(trace: Path) -> None:
    trace.write_bytes(trace.read_bytes()[:-9])


def _in_its_header(trace: Path) -> None:
    trace.write_bytes(trace.read_bytes()[:30])


def _binary(trace: Path) -> None:
    trace.write_bytes(random.Random(3).randbytes(1 << 20))


def _endless(trace: Path) -> None:
    with trace.open("ab") as file:
        file.truncate(1 << 42)


def _no_file(trace: Path) -> None:
    trace.unlink()
    os.mkfifo(trace)


@pytest.mark.parametrize(
    ("spoil", "words", "replayed"),
    [
        (_of_another, "not replayed: it is of another image (an?[31mother)", 0),
        (_damaged, "2 lines are damaged and were left out", len(ORDER)),
        (_cut, "a line is damaged and was left out", len(ORDER) - 1),
        (_in_its_header, "not replayed: it does not begin as a trace does", 0),
        (_binary, "not replayed: it does not begin as a trace does", 0),
        (_endless, "lines are damaged and were left out", len(ORDER)),
        (_no_file, "no trace is replayed: neither a regular file", 0),
    ],
)
def test_a_hostile_trace_is_one_warning(
    image: Path, spoil: Callable[[Path], None], words: str, replayed: int
) -> None:
    trace = image.with_name("t.img.trace")
    record(image, trace)
    spoil(trace)
    server = Server(image)
    wait_until(lambda: misses() >= replayed, "the rest to be replayed")
    read(server.uri, [20])
    seen: list[str] = []

    def told() -> bool:
        seen.append(server.said())
        return words in seen[-1]

    wait_until(told, "the warning")
    assert server.stop() == 0
    assert len(server.errors.splitlines()) == 1, server.errors
    assert f"{trace}: " in server.errors


def test_a_trace_that_is_named_and_missing_is_one_warning(image: Path, tmp_path: Path) -> None:
    server = Server(image, "--trace", tmp_path / "none")
    wait_until(lambda: "none: no trace is replayed: No such file" in server.said(), "the warning")
    read(server.uri, [3])
    assert server.stop() == 0
    assert len(server.errors.splitlines()) == 1, server.errors


def test_all_of_an_image_is_made_ready_without_harm(image: Path) -> None:
    with serving(image, "--prefetch", "all", "--rate", "1G") as server:
        assert nbdclient.read_all(nbdclient.connect(server.uri)) == PLAIN


def test_no_file_of_the_user_is_replaced_by_a_trace(image: Path, tmp_path: Path) -> None:
    note, cow = tmp_path / "note", tmp_path / "c.cow"
    note.write_text("mine\n")
    with package.open(image, cow) as disk:
        disk.pwrite(b"x", 0)
    for path in (note, image, cow):
        before = path.read_bytes()
        refused("attach", image, "--record-trace", path, says=("record-trace", "is no trace"))
        assert path.read_bytes() == before
    refused("attach", image, "--record-trace", tmp_path / "no" / "t", says="record-trace")
    refused("attach", image, "--record-trace", tmp_path, says="record-trace")
    refused("attach", image, "--rate", "0", says="rate: 0 bytes a second")
    assert listed() == []


def test_info_shows_what_a_trace_has(image: Path, tmp_path: Path) -> None:
    trace = tmp_path / "new"
    record(image, trace)
    found = json.loads(cowcloop("info", trace, "--json").stdout)
    assert found["type"] == "trace"
    assert found["path"] == str(trace)
    assert found["image"] == image.name
    assert (found["size"], found["block_size"]) == (COUNT * BLOCK, BLOCK)
    assert (found["blocks"], found["blocks_total"]) == (len(ORDER), COUNT)
    assert found["bytes"] == len(ORDER) * BLOCK
    assert found["share"] == pytest.approx(len(ORDER) / COUNT)
    assert (found["runs"], found["damaged_lines"]) == (4, 0)
    text = cowcloop("info", trace).stdout.decode()
    assert f"{len(ORDER)} of {COUNT}" in text
    assert "15.0 % of the image" in text
    _damaged(trace)
    assert "damaged lines: 2" in " ".join(cowcloop("info", trace).stdout.decode().split())
