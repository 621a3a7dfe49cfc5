"""Reading over a network that lies: what is returned is right, or it is an error."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import cowcloop
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.liar import Liar, Lie, liar
from support.programs import cowcloop as cowcloop_command

#: Each is told a few times, and then the truth.
PASSING = ["whole", "half", "short", "empty", "elsewhere", "encoded", "reset", "broken", "round"]
PASSING += ["missing", "login"]


@pytest.mark.parametrize("lie", PASSING)
def test_a_lie_is_no_data_and_asked_for_again(
    server: Liar, raw: bytes, cache: Path, lie: str
) -> None:
    with cowcloop.open(server.url) as disk:
        begin = len(server.asked)
        server.lie = lambda number, asked: lie if number < begin + 3 else None
        assert disk.pread(200_000, 1_000_000) == raw[1_000_000:1_200_000]
        assert len(server.asked) > begin + 3


@pytest.mark.parametrize("lie", [*PASSING, "stall", "busy", "slower"])
def test_a_server_that_goes_on_lying_fails_reads_alone(
    server: Liar, raw: bytes, cache: Path, lie: str
) -> None:
    with cowcloop.open(server.url, timeout=1) as disk:
        first = disk.pread(1000, 0)
        server.lie = lambda number, asked: lie
        with pytest.raises(OSError, match="cannot read at offset 3000000: ") as failed:
            disk.pread(1000, 3_000_000)
        assert server.url in str(failed.value)
        # The device lives on: what is cached is there, and the next read tries again.
        assert disk.pread(1000, 0) == first == raw[:1000]
        server.lie = lambda number, asked: None
        server.go_on.set()
        assert disk.pread(1000, 3_000_000) == raw[3_000_000:3_001_000]


def test_a_server_that_asks_for_a_pause_gets_it(server: Liar, raw: bytes, cache: Path) -> None:
    with cowcloop.open(server.url) as disk:
        begin = len(server.asked)
        server.lie = lambda number, asked: "busy" if number == begin else None
        start = time.monotonic()
        assert disk.pread(1000, 3_000_000) == raw[3_000_000:3_001_000]
        # The first pause of its own would be a tenth of a second.
        assert time.monotonic() - start >= 0.95


def test_a_changed_image_is_an_error_and_no_mixture(server: Liar, raw: bytes, cache: Path) -> None:
    with cowcloop.open(server.url) as disk:
        assert disk.pread(1000, 0) == raw[:1000]
        server.etag, server.content = '"new"', bytes(len(raw))
        for _ in range(2):
            with pytest.raises(OSError, match="the image on the server has changed"):
                disk.pread(1000, 3_000_000)
        assert disk.pread(1000, 0) == raw[:1000]
    with cowcloop.open(server.url) as disk:
        assert disk.pread(1000, 0) == bytes(1000)


@pytest.mark.parametrize("etag", ['"strong"', 'W/"weak"', None])
def test_every_answer_has_to_be_of_the_same_image(
    server: Liar, raw: bytes, cache: Path, etag: str | None
) -> None:
    server.etag = etag
    with cowcloop.open(server.url) as disk:
        asked = len(server.asked)
        disk.pread(1000, 1_000_000)
        conditions = server.heads[asked]
        if etag == '"strong"':
            assert conditions["if-match"] == etag
        else:
            assert conditions["if-unmodified-since"] == server.date
        # One that ignores the condition.
        server.lie = lambda number, range_: "other"
        if etag is not None:
            with pytest.raises(OSError, match="has changed"):
                disk.pread(1000, 3_000_000)


def test_an_image_that_became_shorter_has_changed(server: Liar, raw: bytes, cache: Path) -> None:
    with cowcloop.open(server.url) as disk:
        server.etag = server.date = None
        server.content = raw[:2_000_000]
        with pytest.raises(OSError, match="has changed"):
            disk.pread(1000, 3_000_000)


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ("whole", "sends the whole image when asked for a part"),
        ("missing", "404 Not Found"),
        ("login", "401 Unauthorized"),
        ("round", "redirects without end"),
        ("encoded", "encoded"),
        ("huge", "18446744073709551615 bytes, and no image has more than"),
    ],
)
def test_what_cannot_be_opened_is_told(server: Liar, cache: Path, lie: str, says: str) -> None:
    server.lie = lambda number, asked: lie
    with pytest.raises(cowcloop.CowcloopError, match=says) as failed:
        cowcloop.open(server.url, timeout=2)
    assert str(failed.value).count("\n") == 0
    if lie == "missing":
        assert isinstance(failed.value, FileNotFoundError)


def test_a_dead_server_is_told(server: Liar, cache: Path) -> None:
    server.stop()
    with pytest.raises(cowcloop.CowcloopError, match=r"Connection refused"):
        cowcloop.open(server.url, timeout=1)


def test_a_name_that_nothing_has_is_told_long_before_the_time_is_over(cache: Path) -> None:
    try:
        socket.getaddrinfo("no-such-host.invalid", 80)
    except socket.gaierror as error:
        if error.errno not in {socket.EAI_NONAME, socket.EAI_NODATA}:
            pytest.skip(f"the resolver here does not know what does not exist: {error}")
    else:
        pytest.skip("the resolver here has an address for every name")
    with pytest.raises(cowcloop.CowcloopError, match=r"not known|No address|not resolve"):
        cowcloop.open("http://no-such-host.invalid/a.img", timeout=60)


def test_without_a_validator_nothing_is_kept(server: Liar, raw: bytes, cache: Path) -> None:
    server.etag = server.date = None
    with cowcloop.open(server.url) as disk:
        assert disk.read() == raw
    assert not list(cache.glob("*.image"))


def test_passwords_go_to_the_server_alone(server: Liar, cache: Path) -> None:
    url = server.url.replace("http://", "http://me:s3cret@") + "?token=t0ken"
    with cowcloop.open(url) as disk:
        assert disk.pread(10, 0) == server.content[:10]
        told = disk.status().image + repr(disk)
        assert "s3cret" not in told
        assert "t0ken" not in told
    assert server.heads[0]["authorization"] == "Basic bWU6czNjcmV0"
    for path in cache.iterdir():
        assert "s3cret" not in path.name
        assert "t0ken" not in path.name
        if path.suffix == ".state":
            assert b"s3cret" not in path.read_bytes()
            assert b"t0ken" not in path.read_bytes()
    server.lie = lambda number, asked: "missing"
    with pytest.raises(FileNotFoundError) as failed:
        cowcloop.open(url)
    assert "s3cret" not in str(failed.value)
    assert "t0ken" not in str(failed.value)


def test_neighbours_are_one_request(server: Liar, raw: bytes, cache: Path) -> None:
    with cowcloop.open(server.url) as disk:
        begin = len(server.asked)
        assert disk.pread(1 << 20, 1 << 20) == raw[1 << 20 : 2 << 20]
        asked = [each for each in server.asked[begin:] if each[0] < 2 << 20]
        assert len(asked) == 1
        assert asked[0] == (1 << 20, 2 << 20)


def test_many_requests_are_on_their_way_at_once(raw: bytes, cache: Path) -> None:
    with liar(raw * 8) as server:
        server.latency = 0.05
        with cowcloop.open(server.url) as disk:
            assert disk.read() == raw * 8
        assert server.most_at_once > 4
        # Each byte once.
        assert sum(end - first for first, end in server.asked) <= len(raw) * 8 + (1 << 16)


def test_readers_of_one_range_share_one_request(server: Liar, raw: bytes, cache: Path) -> None:
    server.latency = 0.1
    with cowcloop.open(server.url) as disk:
        found: list[bytes] = []
        begin = len(server.asked)
        readers = [
            threading.Thread(target=lambda: found.append(disk.pread(1000, 4 << 20)))
            for _ in range(20)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert found == [raw[4 << 20 : (4 << 20) + 1000]] * 20
        assert len(server.asked) == begin + 1


LIES = st.sampled_from([None, None, None, *PASSING])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lies=st.lists(LIES, max_size=12),
    reads=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 300_000)), max_size=8),
    kept=st.booleans(),
)
def test_any_reads_through_any_lies(
    tmp_path_factory: pytest.TempPathFactory,
    raw: bytes,
    lies: list[Lie],
    reads: list[tuple[int, int]],
    kept: bool,
) -> None:
    content = raw[: 1 << 20]
    folder = tmp_path_factory.mktemp("kept")
    if not kept:
        # A file in the way of the directory.
        folder = folder / "file"
        folder.write_bytes(b"")
    with liar(content) as server:
        told = iter(lies)
        with cowcloop.open(server.url, cache_dir=folder) as disk:
            server.lie = lambda number, asked: next(told, None)
            for offset, length in reads:
                assert disk.pread(length, offset) == content[offset : offset + length]


def test_a_system_without_authorities_has_all_but_https(
    server: Liar, cache: Path, tmp_path: Path
) -> None:
    none = tmp_path / "none.pem"
    none.touch()
    system = {"SSL_CERT_FILE": str(none), "SSL_CERT_DIR": str(tmp_path)}
    cowcloop_command("info", server.url, env=system)
    done = cowcloop_command("info", server.url.replace("http:", "https:"), env=system, expect=1)
    assert b"ca-certificates" in done.stderr
