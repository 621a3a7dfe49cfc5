"""What was fetched is kept, shared, mended, bounded; in the end it is the image."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cowcloop
import pytest
from support import nbdclient
from support.liar import Liar, liar
from support.programs import cowcloop as run
from support.programs import refused
from support.server import serving, wait_until

CHUNK = 64 << 10
HEAD = 4096


def data_file(cache: Path) -> Path:
    """The file with the image's bytes."""
    (found,) = cache.glob("*.image")
    return found


def vouched(cache: Path) -> int:
    """How many chunks are vouched for."""
    (state,) = cache.glob("*.state")
    return sum(byte.bit_count() for byte in state.read_bytes()[HEAD:])


def settled(cache: Path, chunks: int) -> None:
    """Wait until so many chunks are vouched for."""
    wait_until(lambda: vouched(cache) >= chunks, f"{chunks} chunks that are vouched for")


def test_what_was_read_is_not_fetched_again(server: Liar, raw: bytes, cache: Path) -> None:
    for _ in range(2):
        with cowcloop.open(server.url) as disk:
            assert disk.read() == raw
    # The second time only what says which image it is.
    fetched = sum(end - first for first, end in server.asked)
    assert fetched <= len(raw) + 2 * CHUNK
    assert data_file(cache).read_bytes() == raw
    assert data_file(cache).stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_server_vouches_for_what_it_fetches_while_it_serves(
    server: Liar, raw: bytes, cache: Path
) -> None:
    with serving(server.url) as served:
        client = nbdclient.connect(served.uri)
        for at in (1 << 20, 3 << 20):
            before = vouched(cache)
            assert bytes(client.pread(512, at)) == raw[at : at + 512]
            settled(cache, before + 1)
        client.shutdown()


def test_only_what_was_read_takes_space(server: Liar, cache: Path) -> None:
    with cowcloop.open(server.url) as disk:
        disk.pread(1000, 3_000_000)
    file = data_file(cache)
    assert file.stat().st_size == len(server.content)
    assert file.stat().st_blocks * 512 < 1 << 20


def test_a_whole_cache_needs_no_server(server: Liar, raw: bytes, cache: Path) -> None:
    done = run("pull", server.url)
    path = Path(done.stdout.decode().strip().rsplit(" in ", 1)[1])
    assert path.read_bytes() == raw
    server.stop()
    with cowcloop.open(server.url, offline=True) as disk:
        assert disk.read() == raw
    # A server that is away is told, and done without.
    with cowcloop.open(server.url, timeout=1) as disk:
        assert disk.read() == raw


def test_offline_reads_what_is_there(server: Liar, raw: bytes, cache: Path) -> None:
    with cowcloop.open(server.url) as disk:
        disk.pread(1000, 3_000_000)
    asked = len(server.asked)
    with cowcloop.open(server.url, offline=True) as disk:
        assert disk.pread(1000, 3_000_000) == raw[3_000_000:3_001_000]
        with pytest.raises(OSError, match="not in the cache, and --offline"):
            disk.pread(1000, 1_000_000)
    assert len(server.asked) == asked
    refused("info", server.url + "x", "--offline", says=("--offline", "nothing of it"))


def test_a_flipped_bit_heals(compressed: Liar, device: bytes, cache: Path) -> None:
    with cowcloop.open(compressed.url) as disk:
        disk.read()
    file = data_file(cache)
    with file.open("r+b") as kept:
        kept.seek(500_000)
        byte = kept.read(1)[0]
        kept.seek(500_000)
        kept.write(bytes([byte ^ 0x10]))
    asked = len(compressed.asked)
    with cowcloop.open(compressed.url) as disk:
        # A part of the block, whose checksum is at its end, and all of it.
        assert disk.pread(100, 480_000) == device[480_000:480_100]
        assert disk.read()[: len(device)] == device
    assert 1 <= len(compressed.asked) - asked <= 3
    assert file.read_bytes() == compressed.content


def test_a_server_with_wrong_bytes_is_found_out(
    compressed: Liar, device: bytes, cache: Path
) -> None:
    with cowcloop.open(compressed.url) as disk:
        begin = len(compressed.asked)
        compressed.lie = lambda number, asked: "wrong" if number == begin else None
        assert disk.pread(100, 700_000) == device[700_000:700_100]
        # Once more, and once only.
        compressed.lie = lambda number, asked: "wrong"
        with pytest.raises(OSError, match=r"block \d+ at offset \d+ is damaged"):
            disk.pread(100, 200_000)


def test_damage_on_the_server_is_told(device: bytes, cache: Path) -> None:
    from support.cloop import build

    broken = bytearray(build(device))
    broken[300_000] ^= 1
    with liar(bytes(broken)) as server:
        done = run("verify", server.url, expect=1)
        assert b"block 4 at offset" in done.stdout


def test_processes_share_one_cache(server: Liar, raw: bytes, cache: Path) -> None:
    code = "import cowcloop, sys; sys.stdout.buffer.write(cowcloop.open(sys.argv[1]).read())"
    command = [sys.executable, "-W", "ignore", "-c", code, server.url]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    assert [reader.communicate()[0] == raw for reader in readers] == [True] * 3
    assert data_file(cache).read_bytes() == raw
    asked = len(server.asked)
    with cowcloop.open(server.url) as disk:
        assert disk.read() == raw
    assert len(server.asked) == asked + 1


def test_a_killed_process_leaves_a_cache_that_is_right(
    server: Liar, raw: bytes, cache: Path
) -> None:
    code = (
        "import cowcloop, sys, os, signal\n"
        "disk = cowcloop.open(sys.argv[1])\n"
        "disk.pread(3_000_000, 0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, server.url], check=False)
    assert done.returncode == -signal.SIGKILL
    with cowcloop.open(server.url) as disk:
        assert disk.read() == raw


@pytest.mark.parametrize("damage", ["cut", "gone", "garbage", "other", "no state"])
def test_a_damaged_cache_costs_speed_alone(
    server: Liar, raw: bytes, cache: Path, damage: str
) -> None:
    with cowcloop.open(server.url) as disk:
        disk.read()
    file = data_file(cache)
    (state,) = cache.glob("*.state")
    if damage == "cut":
        os.truncate(file, 1_000_000)
    elif damage == "gone":
        file.unlink()
    elif damage == "garbage":
        state.write_bytes(os.urandom(5000))
    elif damage == "other":
        head = json.loads(state.read_bytes()[:HEAD])
        head["data"] = "../../" + head["data"]
        state.write_bytes(json.dumps(head).encode().ljust(HEAD) + state.read_bytes()[HEAD:])
    else:
        state.unlink()
    with cowcloop.open(server.url) as disk:
        assert disk.read() == raw
    assert data_file(cache).read_bytes() == raw


def test_a_cache_that_is_cut_in_use_costs_speed_alone(
    server: Liar, raw: bytes, cache: Path
) -> None:
    """Nothing is written beyond the cut, which would make zeros of what was there."""
    with cowcloop.open(server.url) as disk:
        disk.pread(len(raw), 0)
        file = data_file(cache)
        wait_until(lambda: file.read_bytes() == raw, "the whole image in the cache")
        os.truncate(file, 1_000_000)
        assert disk.pread(1000, len(raw) - 1000) == raw[-1000:]
        assert file.stat().st_size == 1_000_000
        assert disk.pread(len(raw), 0) == raw
    with cowcloop.open(server.url) as disk:
        assert disk.pread(len(raw), 0) == raw


def test_a_cache_that_vanishes_costs_speed_alone(server: Liar, raw: bytes, cache: Path) -> None:
    with cowcloop.open(server.url) as disk:
        disk.pread(1000, 0)
        shutil.rmtree(cache)
        assert disk.read() == raw
    with cowcloop.open(server.url) as disk:
        assert disk.read() == raw


@pytest.mark.parametrize("place", ["/proc/nowhere", "file"])
def test_without_a_place_one_warning_is_all(
    server: Liar, raw: bytes, tmp_path: Path, place: str
) -> None:
    folder = Path(place) if place.startswith("/") else tmp_path / "file" / "in the way"
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "out"
    done = run("extract", server.url, out, "--cache-dir", folder)
    assert out.read_bytes() == raw
    (line,) = done.stderr.decode().splitlines()
    assert "cannot be cached" in line
    assert str(folder) in line


def test_the_image_that_was_not_used_for_longest_goes_first(raw: bytes, cache: Path) -> None:
    with liar(raw) as first, liar(raw) as second, liar(raw) as third:
        limit = 2 * len(raw) + (1 << 20)
        for number, server in enumerate((first, second, third)):
            with cowcloop.open(server.url, cache_limit=limit) as disk:
                assert disk.read() == raw
            if number < 2:
                # In the order of their use.
                state = max(cache.glob("*.state"), key=lambda path: path.stat().st_mtime)
                os.utime(state, (1000 + number, 1000 + number))
        assert sum(path.stat().st_blocks for path in cache.iterdir()) * 512 <= limit
        for server, kept in ((third, True), (second, True), (first, False)):
            server.stop()
            if kept:
                with cowcloop.open(server.url, offline=True) as disk:
                    assert disk.read() == raw
            else:
                with pytest.raises(OSError, match="nothing of it"):
                    cowcloop.open(server.url, offline=True)


def test_one_in_use_stays_and_a_full_cache_is_told_once(
    raw: bytes, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = len(raw) + (1 << 20)
    with liar(raw) as first, liar(raw) as second:
        with cowcloop.open(first.url, cache_limit=limit) as used:
            assert used.read() == raw
            with cowcloop.open(second.url, cache_limit=limit) as disk:
                assert disk.pread(len(raw), 0) == raw == disk.pread(len(raw), 0)
            first.lie = lambda number, asked: "broken"
            assert used.pread(len(raw), 0) == raw
        used_space = sum(path.stat().st_blocks for path in cache.iterdir()) * 512
        assert used_space <= limit
    assert [record.message for record in caplog.records if "the cache is full" in record.message]


def test_pull_to_a_file_goes_on_where_it_was(
    server: Liar, raw: bytes, tmp_path: Path, cache: Path
) -> None:
    out = tmp_path / "a.img"
    server.lie = lambda number, asked: "missing" if asked[1] > 3_000_000 else None
    refused("pull", server.url, out, "--timeout", "1", says="404 Not Found")
    assert not out.exists()
    assert (tmp_path / "a.img.part").exists()
    begin = len(server.asked)
    server.lie = lambda number, asked: None
    run("pull", server.url, out)
    assert out.read_bytes() == raw
    assert list(tmp_path.glob("a.img*")) == [out]
    fetched = sum(end - first for first, end in server.asked[begin:])
    assert fetched < len(raw) - 1_000_000


@pytest.mark.parametrize("same", ["nothing", "version"])
def test_pull_to_a_file_does_not_go_on_with_what_may_be_another_image(
    server: Liar, raw: bytes, tmp_path: Path, cache: Path, same: str
) -> None:
    out, url = tmp_path / "a.img", server.url
    if same == "nothing":
        server.etag = server.date = None
    server.lie = lambda number, asked: "missing" if asked[1] > 3_000_000 else None
    refused("pull", url, out, "--timeout", "1", says="404 Not Found")
    server.lie = lambda number, asked: None
    server.content = raw[::-1]
    run("pull", url if same == "nothing" else url + "?another", out)
    assert out.read_bytes() == server.content


def test_pull_checks_what_it_has(device: bytes, tmp_path: Path, cache: Path) -> None:
    from support.cloop import build

    broken = bytearray(build(device))
    broken[300_000] ^= 1
    with liar(bytes(broken)) as server:
        refused("pull", server.url, tmp_path / "a", says="1 of")
