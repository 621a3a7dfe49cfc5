"""The metrics of a server, against what its clients really did."""

from __future__ import annotations

import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cowcloop as package
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support import cloop, nbdclient
from support.programs import cowcloop, refused
from support.server import Server, attach, free_port, listed, serving, wait_until

#: Of the images here, which the fixture ``image`` makes.
BLOCK = 4096

Values = dict[str, float]


def parsed(text: str) -> Values:
    """Each sample by its name and labels; the parser refuses what is no OpenMetrics text."""
    found = {}
    families: Any = text_string_to_metric_families  # which has no types
    for family in families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def ask(port: int, path: str = "/metrics", method: str = "GET") -> tuple[str, str]:
    """The text of an answer, and its type."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode(), answer.headers["Content-Type"]


def scrape(port: int) -> Values:
    return parsed(ask(port)[0])


def ask_socket(path: Path, request: bytes = b"GET /metrics HTTP/1.1\r\n\r\n") -> str:
    """The whole answer on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(request)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer.decode()


def test_every_request_is_counted_exactly(image: Path, tmp_path: Path) -> None:
    port = free_port()
    with serving(image, tmp_path / "c.cow", "--metrics", str(port)) as server:
        before = scrape(port)
        assert before["cowcloop_requests_total{kind=read}"] == 0
        assert before["cowcloop_connections"] == 0
        handle = nbdclient.connect(server.uri)
        for at in range(7):
            handle.pread(512, at * BLOCK)
        handle.pread(3 * BLOCK, 0)
        handle.pwrite(b"x" * 2048, 1024)
        handle.pwrite(b"y" * 1024, 8 * BLOCK)
        pending = scrape(port)
        assert pending["cowcloop_cowfile_pending_bits"] == 3
        handle.flush()
        handle.trim(BLOCK, 2 * BLOCK)
        handle.zero(BLOCK, 4 * BLOCK)
        handle.cache(BLOCK, 0)
        found = scrape(port)
        wanted = {
            "read": (8, 7 * 512 + 3 * BLOCK),
            "write": (2, 3072),
            "flush": (1, 0),
            "trim": (1, BLOCK),
            "zero": (1, BLOCK),
            "extents": (0, 0),
            "cache": (1, BLOCK),
        }
        for kind, (count, size) in wanted.items():
            of = f"{{kind={kind}}}"
            assert found[f"cowcloop_requests_total{of}"] == count, kind
            assert found[f"cowcloop_request_bytes_total{of}"] == size, kind
            assert found[f"cowcloop_request_failures_total{of}"] == 0, kind
            assert found[f"cowcloop_request_duration_seconds_count{of}"] == count, kind
            whole = f"cowcloop_request_duration_seconds_bucket{{kind={kind},le=+Inf}}"
            assert found[whole] == count, kind
        assert found["cowcloop_request_duration_seconds_sum{kind=read}"] > 0
        assert found["cowcloop_connections"] == 1
        assert found["cowcloop_cowfiles"] == 1
        assert found["cowcloop_cowfile_flushes_total"] == 1
        # A block of the trim and one of the zeros, 1 KiB each four times, are bits as well.
        assert found["cowcloop_cowfile_blocks"] == 3 + 8
        assert found["cowcloop_cowfile_pending_bits"] == 8
        handle.flush()
        flushed = scrape(port)
        assert flushed["cowcloop_cowfile_pending_bits"] == 0
        on_disk = (tmp_path / "c.cow").stat().st_blocks * 512
        assert flushed["cowcloop_cowfile_bytes"] == on_disk
        assert flushed["cowcloop_image_reads_total"] > 0
        held = flushed["cowcloop_cache_bytes"]
        assert 0 < held <= flushed["cowcloop_cache_limit_bytes"]
        assert flushed["cowcloop_cache_blocks"] > 0
        assert "cowcloop_sessions{state=open}" not in flushed
        assert "cowcloop_verified_bytes_total" not in flushed


def test_the_cache_tells_hits_misses_and_evictions(tmp_path: Path) -> None:
    size = 64 << 10
    plain = cloop.sample(200 * size, size)
    image = tmp_path / "big.img"
    image.write_bytes(cloop.build(plain, size, level=1))
    port = free_port()
    with serving(image, "--cache", "1M", "--threads", "1", "--metrics", str(port)) as server:
        handle = nbdclient.connect(server.uri)
        for at in range(0, 200, 3):
            handle.pread(size - 512, at * size)
        first = scrape(port)
        handle.pread(size - 512, 198 * size)
        second = scrape(port)
    assert first["cowcloop_cache_misses_total"] == 67
    assert second["cowcloop_cache_hits_total"] == first["cowcloop_cache_hits_total"] + 1
    made = first["cowcloop_cache_evictions_total"] + first["cowcloop_cache_blocks"]
    assert made == 67
    assert first["cowcloop_cache_blocks"] < 20


def test_failed_requests_and_blocks_that_are_wrong(ext2: Path, tmp_path: Path) -> None:
    raw = tmp_path / "r.img"
    shutil.copyfile(ext2, raw)
    package.digest(raw, tree=f"{raw}.verity")
    data = bytearray(raw.read_bytes())
    data[3_000_000] ^= 1
    raw.write_bytes(data)
    port = free_port()
    server = Server(raw, "--metrics", str(port))
    handle = nbdclient.connect(server.uri)
    for _ in range(3):
        with pytest.raises(nbdclient.module().Error):
            handle.pread(512, 3_000_000 // 512 * 512)
    handle.pread(4096, 0)
    found = scrape(port)
    assert server.stop() == 0
    assert found["cowcloop_request_failures_total{kind=read}"] == 3
    assert found["cowcloop_requests_total{kind=read}"] == 4
    assert found["cowcloop_request_bytes_total{kind=read}"] == 4096
    assert found["cowcloop_verify_failures_total"] == 3
    assert found["cowcloop_verified_bytes_total"] >= 4096


def test_sessions_are_counted_and_their_cowfiles_summed(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    port = free_port()
    with serving(image, "--sessions", folder, "--metrics", f"127.0.0.1:{port}") as server:
        uri = server.uri.replace("nbd+unix:///", "nbd+unix:///{}")
        first, second = (nbdclient.connect(uri.format(name)) for name in ("a", "b"))
        first.pwrite(b"x" * 1024, 0)
        second.pwrite(b"x" * 2048, 0)
        both = scrape(port)
        assert both["cowcloop_sessions{state=open}"] == 2
        assert both["cowcloop_cowfiles"] == 2
        assert both["cowcloop_cowfile_blocks"] == 3
        assert both["cowcloop_requests_total{kind=write}"] == 2
        first.shutdown()

        def closed() -> bool:
            return scrape(port)["cowcloop_sessions{state=closed}"] == 1

        wait_until(closed, "the session to close")
        after = scrape(port)
        assert after["cowcloop_cowfiles"] == 1
        on_disk = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        assert after["cowcloop_cowfile_bytes"] == on_disk


def test_a_socket_answers_its_own_user_alone(image: Path, tmp_path: Path, runtime: Path) -> None:
    path = runtime / "m.sock"
    attach(image, "--metrics", path)
    assert path.stat().st_mode & 0o777 == 0o600
    head, _, text = ask_socket(path).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert parsed(text)["cowcloop_connections"] == 0
    assert text.endswith("# EOF\n")
    assert listed()[0]["metrics"] == str(path)
    cowcloop("detach", "--all")
    assert not path.exists()


def test_a_free_port_is_told_by_list(image: Path) -> None:
    attach(image, "--metrics", "0")
    host, _, port = listed()[0]["metrics"].rpartition(":")
    assert host == "127.0.0.1"
    text, kind = ask(int(port), "/")
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert f'version="{package.__version__}"' in text


def test_python_serves_them_too(image: Path) -> None:
    port = free_port()
    with package.serve(image, metrics=port) as server:
        nbdclient.connect(server.uri).pread(512, 0)
        assert scrape(port)["cowcloop_requests_total{kind=read}"] == 1


def test_other_requests_are_answered_as_http_has_it(image: Path) -> None:
    port = free_port()
    with serving(image, "--metrics", str(port)):
        assert ask(port, method="HEAD")[0] == ""
        for path, method, code in (("/x", "GET", 404), ("/metrics", "POST", 405)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                ask(port, path, method)
            assert caught.value.code == code
            caught.value.close()


def _garbage(client: socket.socket) -> None:
    client.sendall(b"\x16\x03\x01\x00\xff" * 100)


def _endless(client: socket.socket) -> None:
    client.sendall(b"GET /" + b"a" * 7000)


def _silent(client: socket.socket) -> None:
    """Connects and says nothing."""


@pytest.mark.parametrize("hostile", [_garbage, _endless, _silent])
def test_hostile_clients_hold_nothing_up(
    image: Path, hostile: Callable[[socket.socket], None]
) -> None:
    port = free_port()
    with serving(image, "--metrics", str(port)) as server:
        clients = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(30)]
        for client in clients:
            try:
                hostile(client)
            except OSError:  # those beyond the number are sent away
                continue
        handle = nbdclient.connect(server.uri)
        assert len(handle.pread(4096, 0)) == 4096

        def answers() -> bool:
            try:
                return scrape(port)["cowcloop_requests_total{kind=read}"] == 1
            except OSError:
                return False

        wait_until(answers, "the metrics to be answered again")
        for client in clients:
            client.close()


def test_a_client_that_hangs_on_does_not_keep_the_server(image: Path) -> None:
    port = free_port()
    with serving(image, "--metrics", str(port)), socket.create_connection(("127.0.0.1", port)) as c:
        c.sendall(b"GET /metrics HTTP/1.1\r\n")


def test_what_cannot_be_listened_on(image: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        says = ("metrics", f"127.0.0.1:{port}", "cannot listen here", "in use")
        refused("attach", image, "--metrics", str(port), says=says)
    for path in (tmp_path / "no" / "m.sock", image):
        refused("attach", image, "--metrics", path, says=("metrics", "cannot make the socket"))
    assert listed() == []
    for bad in ("70000", ":9100", ""):
        cowcloop("attach", image, "--metrics", bad, expect=2)


def test_the_socket_of_a_killed_server_is_replaced(image: Path, runtime: Path) -> None:
    path = runtime / "m.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(image, "--metrics", path):
        assert "# EOF" in ask_socket(path)
