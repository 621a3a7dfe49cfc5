"""Traces of images at URLs, and filling their cache in the background."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cowcloop as package
import pytest
from support import cloop, nbdclient
from support.crowd import read_together
from support.liar import Liar, liar
from support.programs import cowcloop
from support.server import Server, listed, serving, wait_until
from support.sessions import join

BLOCK = 64 << 10
COUNT = 128
#: Bytes of the image that come together.
CHUNK = 16 << 10


@pytest.fixture(scope="module")
def plain() -> bytes:
    """Blocks of which each takes about half of its size when it is compressed."""
    half = BLOCK // 2
    return b"".join(random.Random(number).randbytes(half) + bytes(half) for number in range(COUNT))


@pytest.fixture
def far(plain: bytes) -> Iterator[Liar]:
    """A server of the image."""
    with liar(cloop.build(plain, BLOCK, level=1)) as made:
        yield made


def order(count: int) -> list[int]:
    """Blocks in no order of their own, the same each time."""
    return random.Random(5).sample(range(COUNT), count)


def read(handles: list[Any], blocks: list[int], plain: bytes) -> None:
    """Each client reads a little of each block, one after the other."""
    places = [block * BLOCK + 1024 for block in blocks]
    wanted = [plain[at : at + 4096] for at in places]
    assert read_together(handles, places, 4096) == [wanted] * len(handles)


def record(server: Liar, blocks: list[int], plain: bytes, folder: Path) -> bytes:
    """The trace of these reads."""
    trace, cache = folder / "recorded", folder / "other-cache"
    words = ("--record-trace", trace, "--cache-dir", cache)
    with serving(server.url, *words) as served:
        handle = nbdclient.connect(served.uri)
        read([handle], blocks, plain)
        handle.shutdown()
    return trace.read_bytes()


def chunks(server: Liar) -> Counter[int]:
    """How often each chunk was asked for."""
    asked = ((first // CHUNK, -(-end // CHUNK)) for first, end in server.asked)
    return Counter(chunk for first, end in asked for chunk in range(first, end))


def twice(server: Liar) -> set[int]:
    """The chunks that were asked for more than once.

    Not the first ones: what is read ahead of the index while a server opens its image is let go
    when the server's process forks.
    """
    return {chunk for chunk, times in chunks(server).items() if times > 1 and chunk > 32}


def held() -> dict[str, int]:
    cache: dict[str, int] = listed()[0]["cache"]
    return cache


def test_the_trace_on_the_server_is_made_ready(
    far: Liar, plain: bytes, cache: Path, tmp_path: Path
) -> None:
    blocks = order(30)
    far.trace = record(far, blocks, plain, tmp_path)
    far.asked.clear()
    with serving(far.url + "?token=x") as served:
        wait_until(lambda: held()["misses"] >= len(blocks), "the trace to be replayed")
        before = len(far.asked)
        read([nbdclient.connect(served.uri)], blocks, plain)
        assert held()["misses"] == len(blocks)
        assert len(far.asked) == before, "all of it was here"
    assert twice(far) == set()


@pytest.mark.parametrize("status", ["404", "refused", "page"])
def test_a_server_without_a_trace_is_no_news(
    far: Liar, plain: bytes, cache: Path, status: str
) -> None:
    if status == "refused":
        far.lets_in = lambda path, heads: not path.endswith(".trace")
        far.trace = b"{}"
    if status == "page":
        far.trace = b"<html>not found</html>"
    quiet = status != "page"
    with serving(far.url, quiet=quiet) as served:
        read([nbdclient.connect(served.uri)], [1, 2, 3], plain)
        if not quiet:
            words = "not replayed: it does not begin as a trace does"
            wait_until(lambda: words in served.said(), "the warning")
    assert len(served.errors.splitlines()) == int(not quiet)


def test_info_of_a_trace_on_a_server(far: Liar, plain: bytes, cache: Path, tmp_path: Path) -> None:
    far.trace = record(far, order(10), plain, tmp_path)
    text = cowcloop("info", far.url + ".trace").stdout.decode()
    assert f"10 of {COUNT}" in text


def test_sixty_sessions_and_a_replay_fetch_and_inflate_each_block_once(
    far: Liar, plain: bytes, cache: Path, tmp_path: Path
) -> None:
    blocks = order(100)
    far.trace = record(far, blocks, plain, tmp_path)
    far.asked.clear()
    far.latency = 0.005
    folder = tmp_path / "sessions"
    folder.mkdir()
    with serving(far.url, "--sessions", folder, "--cache", "64M") as served:
        handles = [join(served, f"pc{number}") for number in range(60)]
        read(handles, blocks, plain)
        # The replay may be behind the sessions.
        wait_until(lambda: held()["blocks"] >= len(blocks), "the replay's end")
        found = held()
        for handle in handles:
            handle.shutdown()
    assert twice(far) == set()
    assert found["evictions"] == 0
    assert found["misses"] <= 1.1 * found["blocks"]
    assert found["misses"] <= 1.1 * COUNT


def test_all_of_an_image_is_fetched_and_no_part_twice(far: Liar, plain: bytes, cache: Path) -> None:
    size = len(far.content)
    whole = set(range(-(-size // CHUNK)))

    def complete() -> bool:
        return set(chunks(far)) == whole and far.at_once == 0

    with serving(far.url, "--prefetch", "all"):
        wait_until(complete, "the whole image to be fetched")
    assert twice(far) == set()
    # Nothing is left to do, and no server is needed.
    before = len(far.asked)
    with serving(far.url, "--prefetch", "all", "--offline") as served:
        read([nbdclient.connect(served.uri)], order(COUNT), plain)
    assert len(far.asked) == before
    assert [path.read_bytes() for path in cache.glob("*.image")] == [far.content]


def test_filling_goes_on_where_it_was(far: Liar, plain: bytes, cache: Path) -> None:
    size = len(far.content)
    count = -(-size // CHUNK)
    with serving(far.url, "--prefetch", "all", "--rate", "4M"):
        wait_until(lambda: len(chunks(far)) > count // 3, "a part to be fetched")
    first = chunks(far)
    assert len(first) < count
    with serving(far.url, "--prefetch", "all"):
        wait_until(lambda: len(chunks(far)) == count and far.at_once == 0, "the rest")
    # What was on its way at the end, and the first part, which tells which image it is.
    again = sum(chunks(far).values()) - count
    assert again * CHUNK <= 5 << 16


def test_clients_read_while_the_server_answers_no_prefetch(
    far: Liar, plain: bytes, cache: Path
) -> None:
    hurried = threading.Event()
    far.lie = lambda number, asked: None if hurried.is_set() or number < 2 else "broken"
    with serving(far.url, "--prefetch", "all", quiet=False) as served:
        wait_until(lambda: len(far.asked) > 4, "prefetches to fail")
        hurried.set()
        read([nbdclient.connect(served.uri)], [100, 3], plain)


def test_a_cache_that_keeps_nothing_ends_the_filling(
    plain: bytes, cache: Path, tmp_path: Path
) -> None:
    image = random.Random(7).randbytes(90 << 20)
    with liar(image) as server:
        served = Server(server.url, "--prefetch", "all", "--cache-limit", "1M")
        wait_until(lambda: "keeps no more of the image" in served.said(), "the end")
        asked = sum(end - first for first, end in server.asked)
        assert asked < len(image)
        far_on = 89 << 20
        client = nbdclient.connect(served.uri)
        (found,) = read_together([client], [far_on], 4096)
        assert found == [image[far_on : far_on + 4096]]
        assert served.stop() == 0


def test_a_trace_at_a_url_may_be_named(
    far: Liar, plain: bytes, cache: Path, tmp_path: Path
) -> None:
    blocks = order(10)
    far.trace = record(far, blocks, plain, tmp_path)
    local = tmp_path / "a.img"
    local.write_bytes(far.content)
    with package.serve(local, trace=far.url.replace("a.img", "b.trace")):
        wait_until(lambda: held()["misses"] == len(blocks), "the trace to be replayed")
