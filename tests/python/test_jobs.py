"""Long work from Python: results, progress, and stopping it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cowcloop
import pytest
from cowcloop import _core
from support import cloop
from support.programs import PATIENCE

BLOCK = 65536
SIZE = 64 * BLOCK


@pytest.fixture(scope="module")
def plain() -> bytes:
    return cloop.sample(SIZE, BLOCK)


@pytest.fixture
def image(tmp_path: Path, plain: bytes) -> Path:
    path = tmp_path / "base.img"
    path.write_bytes(cloop.build(plain, BLOCK, level=1))
    return path


def test_extract_and_create_are_each_others_reverse(tmp_path: Path, plain: bytes) -> None:
    raw, image, back = tmp_path / "raw", tmp_path / "image", tmp_path / "back"
    raw.write_bytes(plain)
    made = _core.create(raw, image, block_size=4096, level="best")
    assert made["input_size"] == made["size"] == SIZE
    assert made["file_size"] == image.stat().st_size
    assert made["blocks"] == SIZE // 4096
    extracted = _core.extract(image, [], back)
    assert extracted["size"] == SIZE
    assert back.read_bytes() == plain


def test_extract_applies_cowfiles(image: Path, tmp_path: Path, plain: bytes) -> None:
    cow, out = tmp_path / "cow", tmp_path / "out"
    with cowcloop.open(image, cow) as disk:
        disk.pwrite(b"changed", 12345)
    _core.extract(image, [cow], out, threads=1, sparse=False)
    assert out.read_bytes() == plain[:12345] + b"changed" + plain[12352:]
    with pytest.raises(cowcloop.NotFoundError):
        _core.extract(image, [tmp_path / "missing.cow"], tmp_path / "other")


def test_commit_copies_what_was_not_touched(image: Path, tmp_path: Path, plain: bytes) -> None:
    cow, new = tmp_path / "cow", tmp_path / "new"
    with cowcloop.open(image, cow) as disk:
        disk.pwrite(b"changed", 3 * BLOCK)
    seen: list[tuple[int, int | None]] = []
    done = _core.commit(image, [cow], new, progress=lambda *at: seen.append(at))
    # The last one might be mkuzip's, and short: it is made anew too.
    assert (done["size"], done["blocks"], done["copied_blocks"]) == (SIZE, 64, 62)
    assert done["file_size"] == new.stat().st_size
    assert seen[-1] == (SIZE, SIZE)
    with cowcloop.open(new) as disk:
        assert disk.read() == plain[: 3 * BLOCK] + b"changed" + plain[3 * BLOCK + 7 :]
    with pytest.raises(cowcloop.MismatchError):
        cowcloop.open(new, cow)


@pytest.mark.parametrize("which", ["image", "cow"])
def test_an_output_that_is_an_input_is_refused(image: Path, tmp_path: Path, which: str) -> None:
    cow, link = tmp_path / "cow", tmp_path / "link"
    cowcloop.open(image, cow).close()
    link.symlink_to({"image": image, "cow": cow}[which])
    before = image.read_bytes(), cow.read_bytes()
    with pytest.raises(cowcloop.InvalidInputError):
        _core.extract(image, [cow], link)
    assert (image.read_bytes(), cow.read_bytes()) == before


def test_progress_ends_with_everything(image: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    _core.extract(image, [], tmp_path / "out", progress=lambda *at: seen.append(at))
    assert seen[-1] == (SIZE, SIZE)
    assert seen == sorted(seen)
    seen.clear()
    _core.verify(image, progress=lambda *at: seen.append(at))
    assert seen[-1] == (SIZE, SIZE)


def test_progress_knows_no_total_of_a_pipe(tmp_path: Path, plain: bytes) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(plain,))
    writer.start()
    seen: list[tuple[int, int | None]] = []
    _core.create(pipe, tmp_path / "image", progress=lambda *at: seen.append(at))
    writer.join()
    assert seen[-1][0] == SIZE
    assert seen[0][1] in {None, SIZE}


def test_what_progress_raises_ends_the_work(tmp_path: Path) -> None:
    class StopWorkError(Exception):
        pass

    def stop(done: int, total: int | None) -> None:
        raise StopWorkError

    source, out = tmp_path / "pipe", tmp_path / "image"
    os.mkfifo(source)
    # A writer that writes nothing keeps the work waiting until it is stopped.
    holder = os.open(source, os.O_RDWR)
    try:
        with pytest.raises(StopWorkError):
            _core.create(source, out, progress=stop)
    finally:
        os.close(holder)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_ctrl_c_ends_the_work_and_leaves_nothing(tmp_path: Path) -> None:
    source, out = tmp_path / "pipe", tmp_path / "image"
    os.mkfifo(source)
    holder = os.open(source, os.O_RDWR)
    code = (
        "import sys; from cowcloop import _core\n"
        "try: _core.create(sys.argv[1], sys.argv[2], progress=lambda *_: print('.', flush=True))\n"
        "except KeyboardInterrupt: sys.exit('interrupted')\n"
    )
    command = [sys.executable, "-c", code, os.fspath(source), os.fspath(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as work:
        try:
            assert work.stdout is not None
            assert work.stdout.readline() == ".\n"
            work.send_signal(signal.SIGINT)
            _, errors = work.communicate(timeout=PATIENCE)
        finally:
            work.kill()
            os.close(holder)
    assert errors == "interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_other_threads_run_meanwhile(tmp_path: Path) -> None:
    source = tmp_path / "pipe"
    os.mkfifo(source)
    holder = os.open(source, os.O_RDWR)
    stop = threading.Event()

    def report(done: int, total: int | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    def work() -> None:
        with pytest.raises(KeyboardInterrupt):
            _core.create(source, tmp_path / "image", progress=report)

    thread = threading.Thread(target=work)
    thread.start()
    rounds = 0
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        rounds += 1
    stop.set()
    thread.join()
    os.close(holder)
    # With the GIL held, not one round would run until the thread was over.
    assert rounds > 1000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"level": 0}, "level 0 is not one of"),
        ({"level": 10}, "level 10 is not one of"),
        ({"level": "worst"}, "level worst is not one of"),
        ({"format": "v3"}, "format v3 is not one of"),
        ({"codec": "zip"}, "codec zip is not one of"),
        ({"codec": "xz"}, "codec xz needs the format v4"),
        ({"footer": True}, "footer needs the format v4"),
        ({"block_size": 1000}, "block size 1000 is not a multiple of 512"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, object], says: str) -> None:
    source = tmp_path / "raw"
    source.write_bytes(bytes(4096))
    with pytest.raises(ValueError, match=says):
        _core.create(source, tmp_path / "image", **options)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
