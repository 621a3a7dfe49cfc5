"""Random requests against a plain byte array: in the process, and through the server."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import cloop, cowfile, nbdclient
from support.programs import missing, program, run
from support.server import serving

UNIT = cowfile.UNIT
BLOCK = 4096
SIZE = 64 * UNIT
PLAIN = cloop.sample(SIZE, BLOCK, 11)

offsets = st.integers(0, SIZE - 1) | st.integers(0, SIZE // UNIT - 1).map(lambda n: n * UNIT)
lengths = st.integers(1, 3 * UNIT) | st.integers(1, 12).map(lambda n: n * UNIT)
operation = st.tuples(
    st.sampled_from(["read", "write", "write", "zero", "trim", "flush", "reopen"]),
    offsets,
    lengths,
    st.integers(0, 255),
)
operations = st.lists(operation, min_size=1, max_size=60)
layouts = st.sampled_from(["new", *cowfile.LAYOUTS])


def _fill(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length) if seed else b"\0" * length


def _prepare(folder: Path, layout: str) -> tuple[Path, Path, bytearray]:
    image, cow = folder / "i", folder / "c"
    image.write_bytes(cloop.build(PLAIN, BLOCK))
    device = bytearray(PLAIN)
    if layout != "new":
        changed = {1: b"1" * UNIT, 30: b"\0" * UNIT, 31: b"2" * UNIT}
        cow.write_bytes(cowfile.build(PLAIN, changed, layout))
        device = bytearray(cowfile.merged(PLAIN, changed))
    return image, cow, device


def _closed_right(cow: Path, device: bytearray) -> None:
    assert cowfile.original_refuses(cow, PLAIN) is None
    assert cowfile.merged(PLAIN, cowfile.parse(cow).blocks) == device


@settings(max_examples=250, deadline=None)
@given(layouts, operations)
def test_open_behaves_like_a_byte_array(
    layout: str, steps: list[tuple[str, int, int, int]]
) -> None:
    cowcloop = pytest.importorskip("cowcloop") if _installed() else missing("cowcloop is not built")
    with tempfile.TemporaryDirectory(prefix="cct-") as name:
        image, cow, model = _prepare(Path(name), layout)
        disk = cowcloop.open(image, cow)
        try:
            for kind, offset, length, seed in steps:
                length = min(length, SIZE - offset)
                if kind == "read":
                    assert disk.pread(length, offset) == model[offset : offset + length]
                elif kind == "write":
                    data = _fill(seed, length)
                    disk.pwrite(data, offset)
                    model[offset : offset + length] = data
                elif kind in ("zero", "trim"):
                    (disk.write_zeroes if kind == "zero" else disk.trim)(offset, length)
                    model[offset : offset + length] = b"\0" * length
                elif kind == "flush":
                    disk.flush()
                else:
                    disk.close()
                    _closed_right(cow, model)
                    disk = cowcloop.open(image, cow)
            disk.seek(0)
            assert disk.read() == model
            at = 0
            for start, length, zero in disk.extents(0, SIZE):
                assert start == at
                if zero:
                    assert not any(model[start : start + length])
                at += length
            assert at == SIZE
        finally:
            disk.close()
        _closed_right(cow, model)


def _installed() -> bool:
    import importlib.util

    return importlib.util.find_spec("cowcloop") is not None


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(layouts, st.lists(operations, min_size=1, max_size=3))
def test_the_server_behaves_like_a_byte_array(
    layout: str, days: list[list[tuple[str, int, int, int]]]
) -> None:
    nbd = nbdclient.module()
    with tempfile.TemporaryDirectory(prefix="cct-") as name:
        image, cow, model = _prepare(Path(name), layout)
        for steps in days:
            with serving(image, cow) as server:
                handles = [nbdclient.connect(server.uri, extents=True) for _ in range(2)]
                for number, (kind, offset, length, seed) in enumerate(steps):
                    _one(
                        nbd,
                        handles[number % 2],
                        kind,
                        offset,
                        min(length, SIZE - offset),
                        seed,
                        model,
                    )
                assert nbdclient.read_all(handles[0]) == model
                at = 0
                for length, flags in nbdclient.extents(handles[1], SIZE):
                    if flags:
                        assert not any(model[at : at + length])
                    at += length
                for handle in handles:
                    handle.shutdown()
            _closed_right(cow, model)


def _one(
    nbd: Any, handle: Any, kind: str, offset: int, length: int, seed: int, model: bytearray
) -> None:
    if kind == "read":
        assert handle.pread(length, offset) == model[offset : offset + length]
    elif kind == "write":
        data = _fill(seed, length)
        handle.pwrite(data, offset, nbd.CMD_FLAG_FUA if seed % 5 == 0 else 0)
        model[offset : offset + length] = data
    elif kind == "zero":
        handle.zero(length, offset, nbd.CMD_FLAG_NO_HOLE if seed % 3 == 0 else 0)
        model[offset : offset + length] = b"\0" * length
    elif kind == "trim":
        handle.trim(length, offset)
        model[offset : offset + length] = b"\0" * length
    else:
        handle.flush()


def test_qemu_io_agrees(tmp_path: Path) -> None:
    """An fsx-like run: qemu-io writes patterns, zeros and discards, and checks every one."""
    image, cow, _ = _prepare(tmp_path, "new")
    rng = random.Random(20)
    model: list[int | None] = [None] * (SIZE // 512)
    commands = []
    for _ in range(400):
        first = rng.randrange(len(model))
        count = min(rng.randint(1, 24), len(model) - first)
        span = f"{first * 512} {count * 512}"
        kind = rng.choice(["write", "write", "zero", "discard", "read", "flush"])
        if kind == "write":
            value = rng.randint(1, 255)
            commands.append(f"write -q -P {value} {span}")
            model[first : first + count] = [value] * count
        elif kind == "zero":
            commands.append(f"write -q -z {span}")
            model[first : first + count] = [0] * count
        elif kind == "discard":
            commands.append(f"discard -q {span}")
            model[first : first + count] = [0] * count
        elif kind == "flush":
            commands.append("flush")
        else:
            commands.extend(_checks(model, first, count))
    everything = _checks(model, 0, len(model))
    for round_ in (commands + everything, everything):
        with serving(image, cow) as server:
            arguments = [part for command in round_ for part in ("-c", command)]
            done = run(
                program("qemu-io", "qemu-utils"), "-f", "raw", "-d", "unmap", *arguments, server.uri
            )
            assert b"verification failed" not in done.stdout
    assert len(everything) > 5
    assert cowfile.original_refuses(cow, PLAIN) is None


def _checks(model: list[int | None], first: int, count: int) -> list[str]:
    """Reads of the runs of equal pattern in a range."""
    found = []
    at = first
    while at < first + count:
        end = at
        while end < first + count and model[end] == model[at]:
            end += 1
        if model[at] is not None:
            found.append(f"read -q -P {model[at]} {at * 512} {(end - at) * 512}")
        at = end
    return found


def test_fio_verifies(tmp_path: Path, ext2: Path, chicken: Path) -> None:
    """Random writes of odd sizes at depth 16, each read back and compared; and again tomorrow."""
    cow = tmp_path / "c"
    common = [
        *("--name=v", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-32k"),
        *("--size=5m", "--iodepth=16", "--verify=crc32c", "--randseed=42", "--fsync=64"),
        *("--verify_state_save=0", "--do_verify=1"),
    ]
    fio = program("fio", "fio")
    with serving(chicken, cow) as server:
        run(fio, *common, "--verify_fatal=1", f"--uri={server.uri}", cwd=tmp_path)
    with serving(chicken, cow) as server:
        run(fio, *common, "--verify_fatal=1", "--verify_only", f"--uri={server.uri}", cwd=tmp_path)
    assert cowfile.original_refuses(cow, ext2.read_bytes()) is None
