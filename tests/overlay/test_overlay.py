"""Writing over an image, and going on tomorrow."""

from __future__ import annotations

import errno
import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cowcloop.server.command import plugin_path
from support import cloop, cowfile, nbdclient
from support.programs import cowcloop, one_line, program, refused, run
from support.server import attach, listed, serving, wait_until

UNIT = cowfile.UNIT
BLOCK = 4096
PLAIN = cloop.PLAIN


def test_a_session_continues_the_next_day(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "i.cow"
    before = hashlib.sha256(image.read_bytes()).digest()
    device = bytearray(PLAIN)
    for day, (offset, text) in enumerate(
        [
            (0, b"monday"),
            (UNIT - 3, b"tuesday"),
            (7 * UNIT, b"w" * 3000),
            (len(PLAIN) - 5, b"thurs"),
        ]
    ):
        with serving(image, cow) as server:
            handle = nbdclient.connect(server.uri)
            assert not handle.is_read_only()
            assert nbdclient.read_all(handle) == device, f"day {day}"
            handle.pwrite(text, offset)
            device[offset : offset + len(text)] = text
            assert nbdclient.read_all(handle) == device
            handle.shutdown()
        assert stat.S_IMODE(cow.stat().st_mode) == 0o600
        assert cowfile.original_refuses(cow, PLAIN) is None
        found = cowfile.parse(cow)
        assert cowfile.merged(PLAIN, found.blocks) == device
    assert found.head.layout == "64-little"
    # Only the blocks that were touched are stored.
    assert sorted(found.blocks) == [0, 1, 7, 8, 9, 159]
    assert hashlib.sha256(image.read_bytes()).digest() == before
    out = tmp_path / "out"
    cowcloop("extract", image, cow, out)
    assert out.read_bytes() == device


def test_without_a_cowfile_nothing_can_be_written(image: Path) -> None:
    with serving(image) as server:
        handle = nbdclient.connect(server.uri)
        assert handle.is_read_only()
        with pytest.raises(nbdclient.module().Error):
            handle.pwrite(b"x", 0)
        handle.shutdown()


def test_a_read_only_server_leaves_the_cowfile_alone(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    cow.write_bytes(cowfile.build(PLAIN, {3: b"q" * UNIT}))
    before = cow.read_bytes()
    with serving("--read-only", image, cow) as server:
        handle = nbdclient.connect(server.uri)
        assert handle.is_read_only()
        assert handle.pread(UNIT, 3 * UNIT) == b"q" * UNIT
        handle.shutdown()
        # Any number of programs may read it, as long as none writes.
        with serving("--read-only", image, cow):
            assert b"q" * UNIT in cowcloop("extract", image, cow, "-").stdout
        refused("serve", image, cow, says=("c: ", "in use"))
    assert cow.read_bytes() == before


@pytest.mark.parametrize("layout", cowfile.LAYOUTS)
def test_a_cowfile_is_used_in_place_whatever_machine_wrote_it(
    image: Path, tmp_path: Path, layout: str
) -> None:
    cow = tmp_path / "c"
    changed = {0: b"a" * UNIT, 8: b"b" * UNIT, 9: b"\0" * UNIT, 159: b"c" * UNIT}
    cow.write_bytes(cowfile.build(PLAIN, changed, layout))
    assert cowfile.original_refuses(cow, PLAIN) is None
    info = json.loads(cowcloop("info", "--json", cow).stdout)
    bits, order = layout.split("-")
    assert info["type"] == "cowfile"
    assert (info["word_size"], info["byte_order"]) == (int(bits), order)
    assert (info["blocks_used"], info["blocks_total"]) == (4, 160)
    assert info["base_size"] == len(PLAIN)
    assert info["state"] == "clean"
    assert int(info["fingerprint"], 16) == cowfile.fingerprint(PLAIN) & 0xFFFFFFFF

    inode = cow.stat().st_ino
    device = bytearray(cowfile.merged(PLAIN, changed))
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri)
        assert nbdclient.read_all(handle) == device
        handle.pwrite(b"new" * 700, 20 * UNIT + 100)
        handle.pwrite(b"Z", 9 * UNIT + 5)
        handle.shutdown()
    device[20 * UNIT + 100 : 20 * UNIT + 2200] = b"new" * 700
    device[9 * UNIT + 5] = ord("Z")
    assert cow.stat().st_ino == inode
    assert cowfile.original_refuses(cow, PLAIN) is None
    found = cowfile.parse(cow)
    assert found.head.layout == layout
    assert found.head.version == 1
    assert cowfile.merged(PLAIN, found.blocks) == device
    assert sorted(found.blocks) == [0, 8, 9, 20, 21, 22, 159]


def test_a_fingerprint_with_its_top_bit_set_is_stored_as_the_reference_does(tmp_path: Path) -> None:
    base = b"".join(bytes([sum_]) + b"\0" * 1023 for sum_ in (1, 2, 3, 0x9C)) + b"\0" * 65536
    path, cow = tmp_path / "base", tmp_path / "cow"
    path.write_bytes(base)
    with serving(path, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"x", 0)
        handle.shutdown()
    assert cow.read_bytes()[40:48] == b"\x01\x02\x03\x9c\xff\xff\xff\xff"
    # A file that another tool wrote without the extension is taken too.
    data = bytearray(cow.read_bytes())
    data[44:48] = b"\0\0\0\0"
    cow.write_bytes(data)
    with serving(path, cow):
        pass


def test_a_trailing_partial_block_is_not_addressable(tmp_path: Path) -> None:
    base, cow = tmp_path / "base", tmp_path / "cow"
    plain = PLAIN[: 10 * UNIT + 300]
    base.write_bytes(plain)
    with serving(base, cow, quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        assert handle.get_size() == 10 * UNIT
        handle.pwrite(b"!" * UNIT, 9 * UNIT)
        handle.shutdown()
    assert cowfile.original_refuses(cow, plain) is None
    assert cowcloop("extract", base, cow, "-").stdout == plain[: 9 * UNIT] + b"!" * UNIT


def test_the_size_of_an_old_cowfile_stays(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    cowcloop("detach", attach(image, cow))
    assert cowcloop("attach", image, cow, "--size", str(len(PLAIN))).stderr == b""
    cowcloop("detach", "--all")
    told = cowcloop("attach", image, cow, "--size", "1G").stderr.decode()
    one_line(told, ("c: ", "warning", f"{len(PLAIN)} bytes", "--size"))


def test_stacked(image: Path, tmp_path: Path) -> None:
    """A cowfile describes the device below it, lower cowfiles applied; only the last is written."""
    lower, middle, upper = tmp_path / "l", tmp_path / "m", tmp_path / "u"
    below = {0: b"l" * UNIT, 5: b"l" * UNIT, 6: b"l" * UNIT}
    lower.write_bytes(cowfile.build(PLAIN, below, "32-big"))
    device = cowfile.merged(PLAIN, below)
    middle.write_bytes(cowfile.build(device, {5: b"m" * UNIT}))
    device = cowfile.merged(device, {5: b"m" * UNIT})
    before = lower.read_bytes(), middle.read_bytes()
    with serving(image, lower, middle, upper) as server:
        handle = nbdclient.connect(server.uri)
        assert nbdclient.read_all(handle) == device
        handle.pwrite(b"u" * 10, 5 * UNIT + 1000)
        handle.trim(UNIT, 0)
        handle.shutdown()
    expected = bytearray(device)
    expected[5 * UNIT + 1000 : 5 * UNIT + 1010] = b"u" * 10
    expected[:UNIT] = b"\0" * UNIT
    assert (lower.read_bytes(), middle.read_bytes()) == before
    assert cowfile.original_refuses(upper, device) is None
    assert cowfile.merged(device, cowfile.parse(upper).blocks) == expected
    assert cowcloop("extract", image, lower, middle, upper, "-").stdout == expected
    # In another order they do not fit.
    line = cowcloop("extract", image, middle, lower, upper, "-", expect=1).stderr.decode()
    assert "m: " in line or "l: " in line


def test_memory_overlay_forgets(image: Path, tmp_path: Path) -> None:
    with serving(image, ":memory:") as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"gone tomorrow" * 500, 777)
        assert handle.pread(13, 777) == b"gone tomorrow"
        handle.flush()
        handle.shutdown()
    assert cowcloop("extract", image, "-").stdout == PLAIN
    assert list(tmp_path.iterdir()) == [image]


def test_memory_overlay_has_a_limit(image: Path) -> None:
    with serving("--memory-limit", "64K", image, ":memory:", quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        fill = b"\xaa" * BLOCK
        with pytest.raises(nbdclient.module().Error) as caught:  # noqa: PT012
            for at in range(0, len(PLAIN), BLOCK):
                handle.pwrite(fill, at)
        assert caught.value.errno == "ENOSPC"
        assert handle.pread(BLOCK, 0) == b"\xaa" * BLOCK
        assert handle.pread(BLOCK, len(PLAIN) - BLOCK) == PLAIN[-BLOCK:]
        handle.shutdown()


def test_memory_overlay_over_a_cowfile(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    cow.write_bytes(cowfile.build(PLAIN, {2: b"s" * UNIT}))
    before = cow.read_bytes()
    with serving(image, cow, ":memory:") as server:
        handle = nbdclient.connect(server.uri)
        assert handle.pread(UNIT, 2 * UNIT) == b"s" * UNIT
        handle.pwrite(b"t" * UNIT, 2 * UNIT)
        assert handle.pread(UNIT, 2 * UNIT) == b"t" * UNIT
        handle.shutdown()
    assert cow.read_bytes() == before


def test_discarded_blocks_read_as_zeros_for_good(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    device = bytearray(PLAIN)
    zero = 13 * BLOCK  # a block of zeros in the base
    assert not any(PLAIN[zero : zero + BLOCK])
    steps = [
        ("trim", 2 * BLOCK, 8 * BLOCK),
        ("zero", 30 * UNIT + 7, 5000),
        ("trim", zero, BLOCK),
        ("zero", zero + BLOCK + 100, 300),
    ]
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"old" * BLOCK, 0)
        device[: 3 * BLOCK] = b"old" * BLOCK
        handle.pwrite(b"over zeros" * 400, zero)
        device[zero : zero + 4000] = b"over zeros" * 400
        for kind, offset, length in steps:
            getattr(handle, kind)(length, offset)
            device[offset : offset + length] = b"\0" * length
            assert nbdclient.read_all(handle) == device, (kind, offset)
        handle.shutdown()
    found = cowfile.parse(cow)
    assert cowfile.merged(PLAIN, found.blocks) == device
    assert cowfile.original_refuses(cow, PLAIN) is None
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri, extents=True)
        assert nbdclient.read_all(handle) == device
        handle.shutdown()


def test_discard_gives_the_space_back(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"\x77" * len(PLAIN), 0)
        handle.flush()
        full = cow.stat().st_blocks * 512
        handle.trim(len(PLAIN), 0)
        handle.flush()
        assert full >= len(PLAIN)
        assert cow.stat().st_blocks * 512 <= full - len(PLAIN) + 2 * BLOCK
        handle.shutdown()


def test_extents_are_true_and_useful(image: Path, tmp_path: Path) -> None:
    cow = tmp_path / "c"
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri, extents=True)
        handle.pwrite(b"\x01" * BLOCK, 13 * BLOCK)
        handle.pwrite(b"\x02" * BLOCK, 39 * BLOCK)
        handle.trim(4 * BLOCK, 20 * BLOCK)
        device = nbdclient.read_all(handle)
        found = nbdclient.extents(handle, len(device))
        handle.shutdown()
        shown = run(program("nbdinfo", "libnbd-bin"), "--map", "--json", server.uri).stdout
        mapped = run(
            program("qemu-img", "qemu-utils"), "map", "--output=json", "-f", "raw", server.uri
        ).stdout
        copy = tmp_path / "copy"
        run(program("nbdcopy", "libnbd-bin"), server.uri, copy)
        assert copy.read_bytes() == device
    at = 0
    for length, flags in found:
        if flags:
            assert not any(device[at : at + length])
        at += length
    zeros = sum(length for length, flags in found if flags)
    known = [number for number in range(40) if not any(device[number * BLOCK :][:BLOCK])]
    assert {20, 21, 22, 23} <= set(known)
    assert zeros == len(known) * BLOCK, "every block of zeros is known to be one"
    data = [item for item in json.loads(shown) if item["type"] == 0]
    assert sum(item["length"] for item in data) == len(device) - zeros
    assert sum(item["length"] for item in json.loads(mapped) if item["zero"]) == zeros


def test_a_cowfile_on_a_ram_disk(image: Path, tiny_tmpfs: Path) -> None:
    cow = tiny_tmpfs / "c"
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"ram", 5)
        handle.trim(UNIT, 3 * UNIT)
        handle.shutdown()
    assert cowfile.original_refuses(cow, PLAIN) is None
    assert cowcloop("extract", image, cow, "-").stdout[5:8] == b"ram"


def test_many_connections_see_each_other(image: Path, tmp_path: Path) -> None:
    with serving(image, tmp_path / "c") as server:
        handles = [nbdclient.connect(server.uri) for _ in range(6)]
        assert all(handle.can_multi_conn() for handle in handles)
        for number, handle in enumerate(handles):
            handle.pwrite(b"%d" % number * 100, number * 100)
        handles[0].flush()
        for handle in handles:
            for number in range(6):
                assert handle.pread(100, number * 100) == b"%d" % number * 100
            handle.shutdown()
    blocks = cowfile.parse(tmp_path / "c").blocks
    assert blocks[0][:600] == b"".join(b"%d" % number * 100 for number in range(6))


def test_what_the_server_offers(image: Path, tmp_path: Path) -> None:
    with serving(image, tmp_path / "i.cow") as server:
        handle = nbdclient.connect(server.uri)
        nbd = nbdclient.module()
        assert handle.can_flush()
        assert handle.can_fua()
        assert handle.can_trim()
        assert handle.can_zero()
        assert handle.can_fast_zero()
        assert handle.can_cache()
        assert handle.can_multi_conn()
        assert handle.get_block_size(nbd.SIZE_MINIMUM) == 1
        assert handle.get_block_size(nbd.SIZE_PREFERRED) >= 4096
        assert handle.get_block_size(nbd.SIZE_MAXIMUM) >= 32 << 20
        handle.pwrite(b"durable", 0, nbd.CMD_FLAG_FUA)
        handle.shutdown()
        asking = nbd.NBD()
        asking.set_full_info(True)
        asking.connect_uri(server.uri)
        described = asking.get_export_description()
        assert "i.img" in described
        assert "i.cow" in described
        asking.shutdown()


@pytest.fixture
def ramfs(root: None, tmp_path: Path) -> Iterator[Path]:
    """A file system where no holes can be punched."""
    folder = tmp_path / "ramfs"
    folder.mkdir()
    run(program("mount", "mount"), "-t", "ramfs", "ramfs", folder)
    yield folder
    wait_until(lambda: run("umount", folder, expect=None).returncode == 0, "umount")


def test_requests_are_served_side_by_side() -> None:
    """nbdkit gives requests one by one to a plugin that does not say otherwise."""
    shown = run(program("nbdkit", "nbdkit"), "--dump-plugin", plugin_path()).stdout.decode()
    assert "\nthread_model=parallel\n" in shown
    for callback in ("pwrite", "flush", "trim", "zero", "extents", "cache", "block_size"):
        assert f"\nhas_{callback}=1\n" in shown, callback


def test_a_fast_zero_where_holes_can_be_punched(image: Path, tmp_path: Path) -> None:
    nbd = nbdclient.module()
    with serving(image, tmp_path / "c") as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"x" * 8 * BLOCK, 0)
        handle.zero(4 * BLOCK, BLOCK, nbd.CMD_FLAG_FAST_ZERO)
        assert handle.pread(6 * BLOCK, 0) == b"x" * BLOCK + bytes(4 * BLOCK) + b"x" * BLOCK
        handle.shutdown()


def test_zeros_that_are_to_take_their_space(image: Path, tmp_path: Path) -> None:
    nbd = nbdclient.module()
    cow = tmp_path / "c"
    with serving(image, cow) as server:
        handle = nbdclient.connect(server.uri)
        before = cow.stat().st_blocks * 512
        with pytest.raises(nbd.Error) as refusal:
            handle.zero(64 << 10, 0, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
        assert refusal.value.errnum == errno.EOPNOTSUPP
        assert handle.pread(64 << 10, 0) == PLAIN[: 64 << 10]
        handle.zero(64 << 10, 0, nbd.CMD_FLAG_NO_HOLE)
        assert handle.pread(64 << 10, 0) == bytes(64 << 10)
        handle.flush()
        assert cow.stat().st_blocks * 512 >= before + (64 << 10)
        handle.shutdown()


def test_a_fast_zero_is_refused_where_it_would_be_slow(image: Path, ramfs: Path) -> None:
    nbd = nbdclient.module()
    with serving(image, ramfs / "c") as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"x" * 2 * BLOCK, 0)
        with pytest.raises(nbd.Error) as refusal:
            handle.zero(BLOCK, 0, nbd.CMD_FLAG_FAST_ZERO)
        assert refusal.value.errnum == errno.EOPNOTSUPP
        assert handle.pread(2 * BLOCK, 0) == b"x" * 2 * BLOCK, "and nothing has changed"
        handle.zero(BLOCK, 0)
        assert handle.pread(2 * BLOCK, 0) == bytes(BLOCK) + b"x" * BLOCK
        handle.shutdown()


@pytest.mark.parametrize("block_size", [BLOCK, 1 << 20])
def test_cache_requests_have_blocks_decoded(tmp_path: Path, block_size: int) -> None:
    plain = cloop.sample(4 * block_size, block_size)
    image = tmp_path / "i"
    image.write_bytes(cloop.build(plain, block_size, level=1))

    def cache(uri: str) -> dict[str, int]:
        (device,) = (each for each in listed() if each["uri"] == uri)
        found: dict[str, int] = device["cache"]
        return found

    with serving(image) as server:
        handle = nbdclient.connect(server.uri)
        handle.cache(block_size, 2 * block_size)
        wait_until(lambda: cache(server.uri)["bytes"] >= block_size, "a block in the cache")
        before = cache(server.uri)
        assert handle.pread(100, 2 * block_size + 10) == plain[2 * block_size + 10 :][:100]
        after = cache(server.uri)
        assert (after["misses"], after["hits"]) == (before["misses"], before["hits"] + 1)
        handle.shutdown()
