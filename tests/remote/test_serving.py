"""Images at URLs through every command, and through a server."""

from __future__ import annotations

import json
from pathlib import Path

import cowcloop
import pytest
from support import nbdclient
from support.cloop import build
from support.iso import make
from support.liar import Liar, liar
from support.programs import cowcloop as run
from support.programs import refused
from support.server import listed, serving


def test_every_command_takes_one(
    compressed: Liar, device: bytes, cache: Path, tmp_path: Path
) -> None:
    local = tmp_path / "a.img"
    local.write_bytes(compressed.content)
    url, name = compressed.url, compressed.url
    size = -(-len(device) // 65536) * 65536
    plain = device.ljust(size, b"\0")
    out = tmp_path / "out"
    run("extract", url, out)
    assert out.read_bytes() == plain
    assert run("verify", url).stdout.decode() == f"{name}: all {size >> 16} blocks are good\n"
    of = [json.loads(run("info", path, "--json").stdout) for path in (url, str(local))]
    assert {**of[0], "path": "", "image": ""} == {**of[1], "path": "", "image": ""}
    drawn = [json.loads(run("map", path, "--json").stdout) for path in (url, str(local))]
    assert {**drawn[0], "image": ""} == {**drawn[1], "image": ""}
    with cowcloop.open(url, tmp_path / "c.cow") as disk:
        disk.pwrite(b"changed", 100_000)
    run("commit", url, tmp_path / "c.cow", tmp_path / "new")
    run("commit", local, tmp_path / "c.cow", tmp_path / "new2")
    assert (tmp_path / "new").read_bytes() == (tmp_path / "new2").read_bytes()
    measured = json.loads(run("bench", url, "--runs", "1", "--json").stdout)
    assert measured["image"] == name
    # A cowfile fits the same bytes, wherever they are.
    with cowcloop.open(local, tmp_path / "c.cow") as disk:
        assert disk.pread(7, 100_000) == b"changed"
        disk.pwrite(b"again", 200_000)
    with cowcloop.open(url, tmp_path / "c.cow") as disk:
        assert disk.pread(5, 200_000) == b"again"


def test_raw_images_have_one_identity_everywhere(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    local = tmp_path / "a.raw"
    local.write_bytes(raw)
    with cowcloop.open(server.url, tmp_path / "c.cow") as disk:
        disk.pwrite(b"changed", 100_000)
    with cowcloop.open(local, tmp_path / "c.cow") as disk:
        assert disk.pread(7, 100_000) == b"changed"


def test_a_file_in_a_disc_far_away(device: bytes, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "KNOPPIX").mkdir(parents=True)
    image = build(device)
    (folder / "KNOPPIX/KNOPPIX").write_bytes(image)
    (folder / "noise.bin").write_bytes(bytes(3_000_000))
    iso = make(folder, tmp_path / "cd.iso", "-R")
    with liar(iso.read_bytes()) as server:
        url = server.url + ":/KNOPPIX/KNOPPIX"
        with cowcloop.open(url) as disk:
            # A handful of requests, not thousands.
            assert len(server.asked) <= 12
            assert disk.read()[: len(device)] == device
        info = json.loads(run("info", url, "--json").stdout)
        assert info["file_size"] == len(image)
        assert info["path"] == url
        inside = json.loads(run("info", server.url, "--json").stdout)
        assert [each["image"] for each in inside["images"]] == [url]
        refused("info", server.url + ":/KNOPPIX/NOTHING", says="no such file in the ISO image")
        with serving(url, tmp_path / "c.cow") as served:
            client = nbdclient.connect(served.uri)
            assert bytes(client.pread(100, 70_000)) == device[70_000:70_100]
            client.pwrite(b"hello", 70_000)
            client.flush()
            client.shutdown()
        with cowcloop.open(url, tmp_path / "c.cow") as disk:
            assert disk.pread(5, 70_000) == b"hello"


def test_a_dead_server_holds_nothing_up(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    with serving(server.url, tmp_path / "c.cow", "--timeout", "600", quiet=False) as served:
        client, other = nbdclient.connect(served.uri), nbdclient.connect(served.uri)
        client.pwrite(b"mine" * 1024, 1 << 20)
        assert bytes(client.pread(4096, 0)) == raw[:4096]
        server.lie = lambda number, asked: "stall"
        # As many as a kernel has under way, on one connection, none of which is answered.
        waiting = [nbdclient.module().Buffer(512) for _ in range(128)]
        for number, buffer in enumerate(waiting):
            client.aio_pread(buffer, (2 << 20) + number * 4096)
        # What is in the cowfile or the cache is there all the same: on that connection, and
        # on another one.
        for each in (client, other):
            assert bytes(each.pread(4096, 1 << 20)) == b"mine" * 1024
            assert bytes(each.pread(4096, 0)) == raw[:4096]
            each.pwrite(b"more" * 1024, 1 << 20)
            each.flush()
            each.pwrite(b"mine" * 1024, 1 << 20)
        server.lie = lambda number, asked: None
        server.go_on.set()
        other.shutdown()


def test_a_server_ends_while_reads_wait(server: Liar, cache: Path, tmp_path: Path) -> None:
    with serving(server.url, "--timeout", "600", quiet=False) as served:
        client = nbdclient.connect(served.uri)
        server.lie = lambda number, asked: "stall"
        client.aio_pread(nbdclient.module().Buffer(512), 3 << 20)


def test_secrets_are_in_no_list_and_no_log(server: Liar, cache: Path, tmp_path: Path) -> None:
    url = server.url.replace("http://", "http://me:s3cret@") + "?token=t0ken"
    log = tmp_path / "log"
    uri = run("attach", url, "--log", log, "--timeout", "1").stdout.decode().strip()
    (entry,) = listed()
    assert "s3cret" not in json.dumps(entry)
    assert "t0ken" not in json.dumps(entry)
    client = nbdclient.connect(uri)
    server.lie = lambda number, asked: "broken"
    with pytest.raises(nbdclient.module().Error):
        client.pread(512, 3 << 20)
    client.shutdown()
    run("detach", uri)
    told = log.read_text()
    assert "500 Internal Server Error" in told
    assert "s3cret" not in told
    assert "t0ken" not in told


def test_a_suspend_is_refused(server: Liar, cache: Path) -> None:
    with serving(server.url) as served:
        refused("suspend", served.uri, says="there is no medium to take out")
