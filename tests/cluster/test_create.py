"""create with an executor: the bytes of a local run, whoever does the work and whatever fails."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import cowcloop
import pytest
from cowcloop.cluster import creating, ordered, pool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import cloop, workers

BLOCK = 65536
#: Words, zeros and noise; the last block is short.
PLAIN = cloop.sample(24 * BLOCK, BLOCK) + bytes(7 * BLOCK) + cloop.sample(9 * BLOCK - 777, BLOCK)

KINDS: list[dict[str, Any]] = [
    {},
    {"level": 1},
    {"level": 9},
    {"level": "best", "block_size": 4096},
    *(
        {"format": "v4", "codec": codec, "footer": footer, "block_size": 16384}
        for codec in ("zlib", "none", "xz", "lz4", "lzo")
        for footer in (False, True)
    ),
]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.write_bytes(PLAIN)
    return path


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creating, "RANGE", 2 * BLOCK)


def _both(raw: Path, executor: Executor, **options: Any) -> tuple[bytes, bytes]:
    """The image as made here, and by the executor."""
    here, there = raw.with_name("here"), raw.with_name("there")
    done = cowcloop.create(raw, here, **options)
    assert cowcloop.create(raw, there, executor=executor, **options) == done
    return here.read_bytes(), there.read_bytes()


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("options", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_threads_give_the_same_bytes(raw: Path, options: dict[str, Any]) -> None:
    with ThreadPoolExecutor(2) as threads:
        here, there = _both(raw, threads, **options)
    assert there == here


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("blind", [False, True])
def test_processes_give_the_same_bytes(raw: Path, blind: bool) -> None:
    with workers.processes(blind=blind) as processes:
        for options in ({}, {"format": "v4", "codec": "lz4", "footer": True}):
            here, there = _both(raw, processes, **options)
            assert there == here


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    size=st.integers(1, 40 * 4096),
    block_size=st.sampled_from([512, 1024, 4096, 8192, 65536]),
    ranges=st.integers(1, 65536),
    hole=st.integers(0, 40 * 4096),
    level=st.sampled_from([1, 8]),
)
def test_any_size(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    block_size: int,
    ranges: int,
    hole: int,
    level: int,
) -> None:
    monkeypatch.setattr(creating, "RANGE", ranges)
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        file.write(PLAIN[: max(0, size - hole)])
        file.truncate(size)
    here, there = _both(raw, workers.Inline(), block_size=block_size, level=level)
    assert there == here


@pytest.mark.usefixtures("small_ranges")
def test_a_worker_reads_what_it_sees(raw: Path) -> None:
    seeing = workers.Inline()
    here, there = _both(raw, seeing)
    assert there == here
    assert set(seeing.calls) == {"compress_seen"}

    def unseen(_number: int, call: Any) -> Any:
        return call() if blind.calls[-1] == "compress_bytes" else None

    blind = workers.Inline(unseen)
    here, there = _both(raw, blind)
    assert there == here
    # Once it is known, no range is given out in vain.
    assert blind.calls.count("compress_seen") <= pool.Pool.of(blind).window(2 * BLOCK) + 1


@pytest.mark.usefixtures("small_ranges")
def test_a_file_that_is_another_one_is_not_read(raw: Path, tmp_path: Path) -> None:
    """A copy of the same size at the same path, as another machine may have."""
    out = tmp_path / "out"
    want = tmp_path / "want"
    cowcloop.create(raw, want)

    def replaced(number: int, call: Any) -> Any:
        if number == 1:
            other = tmp_path / "other"
            other.write_bytes(bytes(len(PLAIN)))
            os.utime(other, ns=(raw.stat().st_atime_ns, raw.stat().st_mtime_ns))
            other.replace(raw)
        return call()

    executor = workers.Inline(replaced)
    cowcloop.create(raw, out, executor=executor)
    # The program goes on with the file that it has open.
    assert out.read_bytes() == want.read_bytes()
    assert "compress_bytes" in executor.calls


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("options", [{}, {"format": "v4", "footer": True}])
def test_a_pipe_is_read_here(raw: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    fifo, out, want = tmp_path / "fifo", tmp_path / "out", tmp_path / "want"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(PLAIN,))
    writer.start()
    executor = workers.Inline()
    cowcloop.create(fifo, out, executor=executor, **options)
    writer.join()
    cowcloop.create(raw, want, **options)
    assert out.read_bytes() == want.read_bytes()
    assert set(executor.calls) == {"compress_bytes"}


@pytest.mark.usefixtures("small_ranges")
def test_what_is_in_flight_is_bounded(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = workers.Inline()
    _both(raw, executor)
    # One number of workers is as good as another: it is not told.
    assert 2 < executor.most_out <= pool.Pool.of(executor).window(2 * BLOCK)
    monkeypatch.setattr(pool, "_IN_FLIGHT", 6 * BLOCK)
    executor = workers.Inline()
    here, there = _both(raw, executor)
    assert there == here
    assert executor.most_out <= 3


def test_the_memory_does_not_grow_with_the_workers() -> None:
    for count in (1, 2, 100, 1000, 10_000):
        for piece in (creating.RANGE, 64 << 20):
            assert pool.Pool(workers.Inline(), count).window(piece) * piece <= 1 << 30


@pytest.mark.usefixtures("small_ranges")
def test_a_range_that_failed_is_given_out_again(raw: Path) -> None:
    def flaky(number: int, call: Any) -> Any:
        if number % 3 == 1:
            raise OSError(104, "Connection reset by peer")
        return call()

    here, there = _both(raw, workers.Inline(flaky))
    assert there == here


@pytest.mark.usefixtures("small_ranges")
def test_not_for_ever(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"old")

    def broken(number: int, call: Any) -> Any:
        if number >= 5:
            raise MemoryError("two\nlines")
        return call()

    executor = workers.Inline(broken)
    with pytest.raises(cowcloop.ClusterError) as caught:
        cowcloop.create(raw, out, executor=executor)
    assert str(caught.value) == (
        f"the Inline: the range of {2 * BLOCK} bytes at byte {5 * 2 * BLOCK} failed"
        f" {ordered.ATTEMPTS} times: MemoryError: two lines"
    )
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


@pytest.mark.usefixtures("small_ranges")
def test_a_pool_whose_process_dies(raw: Path, tmp_path: Path) -> None:
    killers: list[Future[None]] = []
    with workers.processes() as processes:

        def kill_one(_done: int, _total: int | None) -> None:
            # It is done when the ranges that are out are done: others wait behind these.
            if not killers:
                killers.append(processes.submit(workers.die))
            else:
                # As long as results come, Python does not look whether a process has died.
                wait(killers)

        with pytest.raises(cowcloop.ClusterError, match="workers have died") as caught:
            cowcloop.create(
                raw,
                tmp_path / "out",
                executor=processes,
                progress=kill_one,
            )
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_pool_that_has_ended(raw: Path, tmp_path: Path) -> None:
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(cowcloop.ClusterError, match="takes no work"):
        cowcloop.create(raw, tmp_path / "out", executor=threads)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_a_result_that_came_back_damaged(raw: Path, tmp_path: Path, part: int) -> None:
    def damaged(number: int, call: Any) -> Any:
        result = list(call())
        if number == 3:
            blob = result[part]
            changed = bytes([blob[0] ^ 1]) + blob[1:] if isinstance(blob, bytes) else blob ^ BLOCK
            result[part] = changed
        return tuple(result)

    with pytest.raises(cowcloop.DamagedError, match="came back damaged"):
        cowcloop.create(raw, tmp_path / "out", executor=workers.Inline(damaged))
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_another_version_is_refused(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creating, "VERSION", "0.0.1")
    with pytest.raises(cowcloop.UnsupportedError, match="install the same version there"):
        cowcloop.create(raw, tmp_path / "out", executor=workers.Inline())
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"level": 0}, "level 0 is not one of"),
        ({"codec": "xz"}, "codec xz needs the format v4"),
        ({"block_size": 1000}, "block size 1000 is not a multiple of 512"),
    ],
)
def test_options_that_make_no_sense(
    raw: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    executor = workers.Inline()
    with pytest.raises(ValueError, match=says):
        cowcloop.create(raw, tmp_path / "out", executor=executor, **options)
    assert not executor.calls
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_what_cannot_be_read_is_said_as_in_a_local_run(tmp_path: Path) -> None:
    for name, content in (("empty", b""),):
        source = tmp_path / name
        source.write_bytes(content)
        said = []
        for executor in (None, workers.Inline()):
            with pytest.raises(cowcloop.InvalidInputError) as caught:
                cowcloop.create(source, tmp_path / "out", executor=executor)
            said.append(str(caught.value))
        assert said[0] == said[1]
    with pytest.raises(cowcloop.NotFoundError):
        cowcloop.create(tmp_path / "none", tmp_path / "out", executor=workers.Inline())


@pytest.mark.usefixtures("small_ranges")
def test_what_progress_raises_ends_the_work(raw: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    def stop(done: int, total: int | None) -> None:
        seen.append((done, total))
        if len(seen) == 3:
            raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as threads, pytest.raises(KeyboardInterrupt):
        cowcloop.create(raw, tmp_path / "out", executor=threads, progress=stop)
    assert seen == [(n * 2 * BLOCK, len(PLAIN)) for n in (1, 2, 3)]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_no_executor(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no submit"):
        cowcloop.create(raw, tmp_path / "out", executor=7)  # type: ignore[arg-type]
