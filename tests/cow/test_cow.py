"""The commands on cowfiles, driven as a person does, with cowfiles of every machine."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from pathlib import Path

import pytest
from support import cloop, cowfile, nbdclient
from support.cows import CHANGED, PLAIN, UNIT, dirty, layouts
from support.interrupted import stopped_half_way
from support.programs import (
    PATIENCE,
    cowcloop,
    cowcloop_path,
    finding,
    mannered,
    one_line,
    program,
    refused,
    run,
)
from support.server import attach, serving


def _usage(*arguments: str | Path) -> str:
    """The command line is wrong: exit code 2 and one line."""
    done = cowcloop("cow", *arguments, expect=2)
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("cowcloop: ")
    assert done.stdout == b""
    return lines[0]


# merge


@layouts
def test_merge(raw: Path, tmp_path: Path, layout: str) -> None:
    cow = tmp_path / "m.cow"
    cow.write_bytes(cowfile.build(PLAIN, CHANGED, layout))
    assert b"4 blocks written" in cowcloop("cow", "merge", "-v", "--yes", raw, cow).stderr
    assert raw.read_bytes() == cowfile.merged(PLAIN, CHANGED)


def test_a_second_merge_finds_nothing_to_do(raw: Path, cow: Path) -> None:
    """The base has another fingerprint by then, but holds all of the blocks."""
    cowcloop("cow", "merge", "--yes", raw, cow)
    before = cow.read_bytes()
    again = cowcloop("cow", "merge", "--yes", raw, cow)
    one_line(again.stderr.decode(), "holds all of these blocks already")
    assert raw.read_bytes() == cowfile.merged(PLAIN, CHANGED)
    assert cow.read_bytes() == before
    # One byte of one block makes it another base.
    changed = bytearray(raw.read_bytes())
    changed[max(CHANGED) * UNIT] ^= 1
    raw.write_bytes(changed)
    refused("cow", "merge", "--yes", raw, cow, says="another base")
    assert raw.read_bytes() == changed


def test_merge_of_a_device_that_was_made_larger(raw: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.cow"
    cowcloop("detach", attach(raw, large, "--size", "1M"))
    refused("cow", "merge", "--yes", raw, large, says=("larger than this base", "extract"))
    assert raw.read_bytes() == PLAIN


def test_merge_into_a_base_that_is_served_is_refused(raw: Path, cow: Path, tmp_path: Path) -> None:
    with serving(raw, tmp_path / "other.cow"):
        refused("cow", "merge", "--yes", raw, cow, says=("disk.raw", "in use"))
    assert raw.read_bytes() == PLAIN


@pytest.mark.parametrize("served", ["the file", "the device"])
def test_merge_through_a_loop_device_of_a_base_that_is_served_is_refused(
    raw: Path, cow: Path, tmp_path: Path, loop: None, served: str
) -> None:
    losetup = program("losetup", "mount")
    device = run(losetup, "--find", "--show", raw).stdout.decode().strip()
    image, other = (raw, device) if served == "the file" else (device, raw)
    try:
        with serving(image, tmp_path / "other.cow"):
            refused("cow", "merge", "--yes", other, cow, says="in use")
        assert raw.read_bytes() == PLAIN
    finally:
        run(losetup, "-d", device)


def test_zeros_alone_are_no_sign_of_a_merge(raw: Path, cow: Path) -> None:
    cow.write_bytes(cowfile.build(PLAIN, {9: bytes(UNIT)}))
    raw.write_bytes(b"another base".ljust(len(PLAIN), b"\0"))
    refused("cow", "merge", "--yes", raw, cow, says="another base")


def test_merge_asks_nothing_in_a_script(raw: Path, cow: Path) -> None:
    assert "--yes" in _usage("merge", raw, cow)
    assert raw.read_bytes() == PLAIN


def _answer(text: bytes, *command: str | Path) -> tuple[int, str]:
    """Runs a command on a terminal and answers its question; exit code and what it showed."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(cowcloop_path(), [cowcloop_path(), *map(str, command)])
    shown = b""
    answered = False
    silent = 0
    while silent < 12:
        if not select.select([terminal], [], [], 5)[0]:
            silent += 1
            # Python's input() misses a Ctrl-C that comes just before it begins to read:
            # as people do, press the key again.
            os.write(terminal, text if answered else b"")
            continue
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
        if b"[y/N]" in shown and not answered:
            os.write(terminal, text)
            answered = True
    # Only then: a terminal that goes away while it leaves would end it with SIGHUP.
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(terminal)
    assert answered, shown
    mannered(shown.decode())
    return code, shown.decode()


def test_merge_asks_on_a_terminal(raw: Path, cow: Path) -> None:
    code, shown = _answer(b"n\n", "cow", "merge", raw, cow)
    assert code == 1
    assert "nothing was changed" in shown
    assert raw.read_bytes() == PLAIN
    code, shown = _answer(b"\x03", "cow", "merge", raw, cow)
    assert code == 130
    assert raw.read_bytes() == PLAIN
    code, shown = _answer(b"y\n", "cow", "merge", raw, cow)
    assert code == 0
    assert raw.read_bytes() == cowfile.merged(PLAIN, CHANGED)


def test_merge_refuses_what_does_not_belong_together(raw: Path, cow: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.raw"
    other.write_bytes(b"z" * len(PLAIN))
    refused("cow", "merge", "-y", other, cow, says="another base")
    other.write_bytes(PLAIN + b"\1" * UNIT)
    refused("cow", "merge", "-y", other, cow, says="another base")
    image = tmp_path / "i.img"
    image.write_bytes(cloop.build(PLAIN, 4096))
    refused("cow", "merge", "-y", image, cow, says="cowcloop commit")
    cow.write_bytes(dirty("64-little"))
    refused("cow", "merge", "-y", raw, cow, says="cow repair")
    cow.write_bytes(cowfile.build(PLAIN, CHANGED, packed=True))
    refused("cow", "merge", "-y", raw, cow, says="cow unpack")
    assert raw.read_bytes() == PLAIN


# watch


def test_watch(cow: Path, tmp_path: Path) -> None:
    space = os.statvfs(tmp_path)
    shown = cowcloop("cow", "watch", cow).stdout.decode()
    assert f"({space.f_blocks * space.f_frsize} bytes)" in shown
    # Any size of ours is below what is asked for: it does not wait.
    assert b"free" in cowcloop("cow", "watch", cow, "7000P").stdout


def test_watch_waits_until_space_falls_below(tiny_tmpfs: Path) -> None:
    cow = tiny_tmpfs / "w.cow"
    cow.write_bytes(cowfile.build(PLAIN, CHANGED))
    waiting = subprocess.Popen(
        [cowcloop_path(), "cow", "watch", str(cow), "1M"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2.5)
        (tiny_tmpfs / "fill").write_bytes(b"x" * (3 << 20))
        out, err = waiting.communicate(timeout=PATIENCE)
    finally:
        waiting.kill()
    assert (waiting.returncode, err) == (0, b"")
    assert b"free" in out


def test_watch_a_served_device(cow: Path, raw: Path) -> None:
    uri = attach(raw, cow)
    assert str(cow) in cowcloop("cow", "watch", uri).stdout.decode()
    cowcloop("detach", uri)
    uri = attach(raw, ":memory:")
    refused("cow", "watch", uri, says="in memory")
    uri = attach(raw)
    refused("cow", "watch", uri, says="no cowfile")


# snapshot


@layouts
def test_snapshot_of_a_file(raw: Path, tmp_path: Path, layout: str) -> None:
    cow, new = tmp_path / "s.cow", tmp_path / "n.cow"
    data = cowfile.build(PLAIN, CHANGED, layout)
    cow.write_bytes(data)
    cowcloop("cow", "snapshot", cow, new)
    assert cow.read_bytes() == data
    assert cowfile.original_refuses(new, PLAIN) is None
    assert cowfile.parse(new).blocks == CHANGED
    assert cowcloop("extract", raw, new, "-").stdout == cowfile.merged(PLAIN, CHANGED)
    before = new.read_bytes()
    refused("cow", "snapshot", cow, new, says=("n.cow exists", "another name"))
    # Two files with lives of their own.
    with serving(raw, new) as server:
        refused("cow", "snapshot", server.uri, cow, says=("s.cow exists", "another name"))
        assert (cow.read_bytes(), new.read_bytes()[1024:]) == (data, before[1024:])
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"n" * UNIT, 8 * UNIT)
        handle.shutdown()
    assert cow.read_bytes() == data


@pytest.mark.parametrize("named_by", ["uri", "cowfile"])
def test_snapshot_of_a_device_that_is_written(raw: Path, tmp_path: Path, named_by: str) -> None:
    cow, new = tmp_path / "s.cow", tmp_path / "n.cow"
    with serving(raw, cow) as server:
        handle = nbdclient.connect(server.uri)
        handle.pwrite(b"before" * 500, 10)
        cowcloop("cow", "snapshot", server.uri if named_by == "uri" else cow, new)
        handle.pwrite(b"after." * 500, 10)
        handle.shutdown()
    expected = bytearray(PLAIN)
    expected[10:3010] = b"before" * 500
    assert cowfile.original_refuses(new, PLAIN) is None
    assert cowcloop("extract", raw, new, "-").stdout == expected
    expected[10:3010] = b"after." * 500
    assert cowcloop("extract", raw, cow, "-").stdout == expected


def test_snapshot_refuses(cow: Path, tmp_path: Path) -> None:
    new = tmp_path / "n.cow"
    cow.write_bytes(dirty("64-big"))
    refused("cow", "snapshot", cow, new, says="cow repair")
    cow.write_bytes(cowfile.build(PLAIN, CHANGED, packed=True))
    refused("cow", "snapshot", cow, new, says="packed")
    assert not new.exists()
    assert not list(tmp_path.glob(".*"))


def test_snapshot_to_a_name_that_is_not_text(cow: Path, raw: Path, tmp_path: Path) -> None:
    new = os.fsencode(tmp_path) + b"/n\xff.cow"
    cowcloop("cow", "snapshot", cow, os.fsdecode(new))
    assert os.path.exists(new)
    os.unlink(new)
    uri = attach(raw, cow)
    refused("cow", "snapshot", uri, os.fsdecode(new), says="utf-8")
    assert not os.path.exists(new)


# all of them


@pytest.mark.parametrize(
    "arguments",
    [
        ("repair", "{no}"),
        ("merge", "-y", "{raw}", "{no}"),
        ("merge", "-y", "{no}", "{cow}"),
        ("pack", "{no}", "{out}"),
        ("unpack", "{no}", "{out}"),
        ("watch", "{no}"),
        ("snapshot", "{no}", "{out}"),
        ("snapshot", "{cow}", "{no}/out"),
        ("pack", "{cow}", "{no}/out"),
    ],
)
def test_missing_files(raw: Path, cow: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    names = {"no": tmp_path / "nowhere", "raw": raw, "cow": cow, "out": tmp_path / "out"}
    says = "out" if "{no}/out" in arguments else "nowhere"
    refused("cow", *(word.format(**names) for word in arguments), says=says)
    assert not names["out"].exists()


def test_wrong_arguments(cow: Path) -> None:
    _usage("repair")
    _usage("repair", cow, cow)
    _usage("merge", cow)
    _usage("pack", cow)
    _usage("unpack", cow)
    _usage("watch", cow, "lots")
    _usage("snapshot", cow)
    _usage("snapshot", cow, "new", "--session", "anna")
    assert "repair" in _usage("repiar", cow)


def test_a_cowfile_in_use_is_refused_by_name(raw: Path, cow: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving(raw, cow):
        for words in (
            ("repair", "--force", cow),
            ("merge", "-y", raw, cow),
            ("pack", cow, out),
        ):
            refused("cow", *words, says=("disk.cow", "in use"))
    assert not out.exists()


def test_a_folder_that_cannot_be_written(cow: Path, tmp_path: Path) -> None:
    # Root may write anywhere but into what is no real folder.
    folder = Path("/proc/self")
    refused("cow", "pack", cow, folder / "out")
    refused("cow", "snapshot", cow, folder / "out")
    packed = tmp_path / "p"
    cowcloop("cow", "pack", cow, packed)
    refused("cow", "unpack", packed, folder / "out")


def test_interrupted_half_way(tmp_path: Path) -> None:
    """Ctrl-C while it works leaves nothing under the final name, nor beside it."""
    big = tmp_path / "big.cow"
    base = b"\1" * UNIT * 65536
    noise = os.urandom(1 << 20)
    blocks = {at: noise[at % 1024 * UNIT :][:UNIT] for at in range(65536)}
    big.write_bytes(cowfile.build(base, blocks))
    out = tmp_path / "out"
    assert stopped_half_way("cow", "pack", "-z", big, out, folder=tmp_path) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["big.cow"]
    assert run(cowcloop_path(), "cow", "pack", big, out).returncode == 0


@pytest.mark.parametrize("state", ["dirty", "clean"])
def test_an_interrupted_merge_says_what_to_do(tmp_path: Path, state: str) -> None:
    """A merge is too quick to be hit half way by a signal: the engine's part is feigned."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from cowcloop import _core\n"
        "def cow_merge(raw, cow, progress):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "_core.cow_merge = cow_merge\n"
        f"_core.cow_info = lambda cow: {{'state': {state!r}}}\n"
    )
    words = ("cow", "merge", "--yes", "raw", "cow")
    done = cowcloop(*words, expect=130, env=finding(tmp_path))
    line = one_line(done.stderr.decode(), "interrupted")
    told = "raw is changed in part; merge again to complete it" in line
    assert told == (state == "dirty")
