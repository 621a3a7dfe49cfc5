"""What extract does with OUT."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from support import cloop
from support.interrupted import stopped_half_way
from support.programs import cowcloop, cowcloop_path, program, refused, run

BLOCK = 65536
PLAIN = cloop.sample(20 * BLOCK, BLOCK)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "i.img"
    path.write_bytes(cloop.build(PLAIN, BLOCK, level=1))
    return path


def test_an_existing_out_is_replaced(image: Path) -> None:
    out = image.with_name("out")
    out.write_bytes(b"old" * 10_000_000)
    other = image.with_name("other")
    os.link(out, other)
    cowcloop("extract", image, out)
    assert out.read_bytes() == PLAIN
    assert other.read_bytes() == b"old" * 10_000_000, "the old file itself is not written to"


def test_an_existing_out_stays_when_extract_fails(image: Path) -> None:
    out = image.with_name("out")
    out.write_bytes(b"old")
    data = bytearray(image.read_bytes())
    data[-100] ^= 1
    image.write_bytes(data)
    refused("extract", image, out, says="i.img")
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in image.parent.iterdir()) == ["i.img", "out"]


def test_out_must_not_be_an_input(image: Path) -> None:
    before = image.read_bytes()
    alias = image.with_name("alias")
    alias.symlink_to(image)
    hard = image.with_name("hard")
    os.link(image, hard)
    for out in (image, alias, hard):
        refused("extract", image, out, says=out.name)
        assert image.read_bytes() == before


def test_out_in_a_missing_or_closed_place(image: Path) -> None:
    refused("extract", image, image.parent / "no" / "out", says="out")
    refused("extract", image, image.parent, says=image.parent.name)
    refused("extract", image, f"{image.parent}/new/", says="directory")
    assert not (image.parent / "new").exists()


def test_extract_into_a_pipe_in_order(image: Path) -> None:
    shell = f"{cowcloop_path()} extract {image} - | cat"
    assert run("/bin/bash", "-o", "pipefail", "-c", shell).stdout == PLAIN


def test_a_reader_that_goes_away(image: Path) -> None:
    big = image.with_name("big")
    big.write_bytes(cloop.build(PLAIN * 20, BLOCK, level=1))
    shell = f"{cowcloop_path()} extract {big} - | head -c 10; echo ${{PIPESTATUS[0]}} >&2"
    done = run("/bin/bash", "-c", shell)
    assert done.stdout == PLAIN[:10]
    lines = done.stderr.decode().splitlines()
    assert int(lines[-1]) in (1, 128 + signal.SIGPIPE)
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
def test_stopped_half_way_leaves_nothing(tmp_path: Path, how: signal.Signals, code: int) -> None:
    """No file under the final name, nor any other; even if no process is left to remove one."""
    image = tmp_path / "i.img"
    stream = cloop.encode("zlib", b"\x55" * BLOCK)
    image.write_bytes(cloop.assemble("V2.0", BLOCK, [stream] * 100_000))
    assert stopped_half_way("extract", image, tmp_path / "out", folder=tmp_path, how=how) == code
    assert [path.name for path in tmp_path.iterdir()] == ["i.img"]


def test_no_progress_without_a_terminal(image: Path) -> None:
    done = cowcloop("extract", image, image.with_name("out"))
    assert done.stderr == b""


def test_progress_on_a_terminal_has_rate_and_time_left(image: Path) -> None:
    big = image.with_name("big")
    big.write_bytes(cloop.build(PLAIN * 20, BLOCK, level=1))
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [cowcloop_path(), "extract", big, "-"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = bytearray()

    def watch() -> None:
        # A terminal whose other end is closed is an error.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                shown.extend(part)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert child.stdout is not None
    written = 0
    # Slowly, so that there is something to see.
    while part := child.stdout.read(1 << 20):
        written += len(part)
        time.sleep(0.05)
    child.stdout.close()
    assert child.wait() == 0
    watcher.join()
    os.close(ours)
    assert written == 20 * len(PLAIN)
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", bytes(shown)).decode()
    assert re.search(r"[\d.]+ MiB of 25\.0 MiB +[\d.]+ MiB/s +\d\d:\d\d", text), text


def test_a_block_device_gets_its_zeros(image: Path, loop: None) -> None:
    losetup = program("losetup", "mount")
    backing = image.with_name("disk")
    backing.write_bytes(b"\xee" * (len(PLAIN) + 8192))
    device = run(losetup, "--find", "--show", backing).stdout.decode().strip()
    try:
        cowcloop("extract", image, device)
        again = image.with_name("again")
        cowcloop("extract", device, again)  # and a block device is an image too
    finally:
        run(losetup, "--detach", device)
    assert backing.read_bytes() == PLAIN + b"\xee" * 8192
    assert again.read_bytes() == PLAIN + b"\xee" * 8192


def test_a_block_device_that_is_too_small(image: Path, loop: None) -> None:
    losetup = program("losetup", "mount")
    backing = image.with_name("disk")
    backing.write_bytes(b"\xee" * (len(PLAIN) // 2))
    device = run(losetup, "--find", "--show", backing).stdout.decode().strip()
    try:
        refused("extract", image, device, says=Path(device).name)
    finally:
        run(losetup, "--detach", device)
    assert backing.read_bytes() == b"\xee" * (len(PLAIN) // 2), "refused before anything is written"


@pytest.mark.parametrize(
    "wrong",
    [
        ["extract"],
        ["extract", "one"],
        ["extract", "--nonsense", "a", "b"],
        ["extract", "--threads", "many", "a", "b"],
        ["nonsense"],
        ["info"],
        ["verify", "a", "b", "c"],
        ["create", "--level", "77", "a", "b"],
        ["create", "--block-size", "wide", "a", "b"],
        ["serve"],
        ["serve", "--cache", "-1", "a"],
        ["detach"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_exit_code_2(wrong: list[str]) -> None:
    done = cowcloop(*wrong, expect=2)
    assert done.stderr
    assert not done.stdout


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "pipe"])
@pytest.mark.parametrize("command", ["extract", "serve", "info"])
def test_a_pipe_is_no_image(tmp_path: Path, command: str, name: str) -> None:
    """An image is read in any order: that is said, and what to do."""
    os.mkfifo(tmp_path / "pipe")
    out = ["out"] if command == "extract" else []
    says = ("a pipe does not allow", "save it in a file")
    line = refused(command, name, *out, says=says, cwd=tmp_path, stdin=b"x" * 4096)
    assert line.startswith(f"cowcloop: {name}: ")
    assert not (tmp_path / "out").exists()
