"""Exceptions: their classes, their errno and their one line."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cowcloop
import pytest
from cowcloop import errors
from support import cloop, cowfile
from support.programs import refused

PLAIN = cloop.sample(16 * 4096, 4096)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "base.img"
    path.write_bytes(cloop.build(PLAIN, 4096))
    return path


def one_line(error: BaseException, path: Path) -> None:
    assert str(error).startswith(os.fspath(path))
    assert "\n" not in str(error)


def test_every_error_is_a_cowcloop_error() -> None:
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, cowcloop.CowcloopError)
        assert getattr(cowcloop, name) is error


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with pytest.raises(cowcloop.NotFoundError) as caught:
        cowcloop.open(path)
    assert isinstance(caught.value, (FileNotFoundError, cowcloop.StorageError))
    assert caught.value.errno == errno.ENOENT
    one_line(caught.value, path)


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory") as caught:
        cowcloop.open(tmp_path)
    assert isinstance(caught.value, cowcloop.CowcloopError)
    one_line(caught.value, tmp_path)


def test_a_bad_image(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(cloop.header("V2.0", 1000, 1) + bytes(100))
    with pytest.raises(cowcloop.ImageFormatError, match="block_size 1000") as caught:
        cowcloop.open(path)
    assert isinstance(caught.value, ValueError)
    one_line(caught.value, path)


def test_what_is_no_cowfile(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "cow"
    path.write_bytes(bytes(8192))
    with pytest.raises(cowcloop.ImageFormatError, match="not a cowfile") as caught:
        cowcloop.open(image, path)
    one_line(caught.value, path)


def test_the_cowfile_of_another_base(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "cow"
    path.write_bytes(cowfile.build(cloop.sample(16 * 4096, 4096, seed=2), {}))
    with pytest.raises(cowcloop.MismatchError, match="another base") as caught:
        cowcloop.open(image, path)
    assert isinstance(caught.value, ValueError)
    one_line(caught.value, path)


def test_a_cowfile_in_use(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "cow"
    with cowcloop.open(image, path), pytest.raises(cowcloop.BusyError) as caught:
        cowcloop.open(image, path)
    assert caught.value.errno == errno.EBUSY
    one_line(caught.value, path)
    cowcloop.open(image, path).close()


def test_a_cowfile_above_memory(image: Path, tmp_path: Path) -> None:
    """Its base would be gone for good once it is closed."""
    cow = tmp_path / "c"
    with pytest.raises(cowcloop.InvalidInputError, match="give it last"):
        cowcloop.open(image, ":memory:", cow)
    with pytest.raises(cowcloop.InvalidInputError, match="give it last"):
        cowcloop.serve(image, ":memory:", cow)
    assert not cow.exists()


def test_a_cowfile_given_twice(image: Path, tmp_path: Path) -> None:
    """Under one name, under two, and as a link; overlays in memory are two."""
    path, hard, soft = tmp_path / "cow", tmp_path / "hard", tmp_path / "soft"
    soft.symlink_to(path)
    for again in (path, soft):
        with pytest.raises(cowcloop.InvalidInputError, match="given twice") as caught:
            cowcloop.open(image, path, again)
        one_line(caught.value, again)
        assert not path.exists()
    cowcloop.open(image, path).close()
    os.link(path, hard)
    for again in (path, soft, hard):
        for use in (cowcloop.open, cowcloop.serve):
            with pytest.raises(cowcloop.InvalidInputError, match="given twice"):
                use(image, path, tmp_path / "between", again)
    assert not (tmp_path / "between").exists()
    cowcloop.open(image, ":memory:", ":memory:").close()


def test_a_cowfile_that_the_original_driver_left_dirty(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "cow"
    made = bytearray(cowfile.build(PLAIN, {1: b"x" * 1024}))
    made[6] |= 1
    path.write_bytes(made)
    with pytest.raises(cowcloop.DirtyError, match="repair") as caught:
        cowcloop.open(image, path)
    one_line(caught.value, path)


def test_a_missing_cowfile_is_made_only_when_it_may_be(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "cow"
    with pytest.raises(cowcloop.NotFoundError) as caught:
        cowcloop.open(image, path, create=False)
    one_line(caught.value, path)
    assert not path.exists()


def test_a_full_throw_away_overlay(image: Path) -> None:
    with cowcloop.open(image, ":memory:", memory_limit=8192) as disk:
        with pytest.raises(cowcloop.NoSpaceError) as caught:
            disk.pwrite(os.urandom(32768), 0)
        assert caught.value.errno == errno.ENOSPC
        assert len(disk.pread(4096, 32768)) == 4096


def test_arguments_of_the_wrong_type(image: Path) -> None:
    with pytest.raises(TypeError):
        cowcloop.open(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        cowcloop.open(image, cache=1.5)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        cowcloop.open(image, cache=-1)


def test_errors_are_pickled_as_they_are() -> None:
    for error in (
        cowcloop.BusyError(errno.EBUSY, "a.cow: in use"),
        cowcloop.NotFoundError(errno.ENOENT, "a.img: missing"),
        cowcloop.MismatchError("a.cow: of another base"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert getattr(again, "errno", None) == getattr(error, "errno", None)


def test_a_damaged_block_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "bad.img"
    image = bytearray(cloop.build(PLAIN, 4096))
    image[-1] ^= 1
    path.write_bytes(image)
    with cowcloop.open(path) as disk:
        for _ in range(2):
            with pytest.raises(cowcloop.DamagedError):
                disk.pread(4096, 15 * 4096)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("cowcloop", "ERROR")
    assert "block 15" in record.getMessage()


def test_an_unknown_kind_is_told_by_its_errno() -> None:
    error = errors.from_engine("invented", errno.EACCES, "x: no")
    assert isinstance(error, PermissionError)
    assert str(error) == "x: no"


def test_the_server_is_loaded_only_when_asked_for() -> None:
    code = "import sys, cowcloop; print('cowcloop.server' in sys.modules, 'click' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
    assert {"serve", "open"} <= set(dir(cowcloop))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cowcloop.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["r", "rb", "r+b", "rb+", "w", "wb", "a+", "xb", "rt"])
def test_a_mode_is_no_cowfile(image: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image.parent)
    before = sorted(image.parent.iterdir())
    for use in (cowcloop.open, cowcloop.serve):
        with pytest.raises(cowcloop.InvalidInputError, match="looks like a mode"):
            use(image, mode)
    assert sorted(image.parent.iterdir()) == before
    cowcloop.open(image, f"./{mode}").close()
    assert (image.parent / mode).exists()


def test_errors_of_the_system_have_the_name_of_the_file(image: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for use in (cowcloop.open, cowcloop.serve):
        with pytest.raises(FileNotFoundError) as caught:
            use(missing)
        assert caught.value.filename == str(missing)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.filename, str(again)) == (str(missing), str(caught.value))
        with pytest.raises(FileNotFoundError) as caught:
            use(f"{missing}.iso:/image")
        assert caught.value.filename == f"{missing}.iso:/image"
    with cowcloop.open(image) as disk, pytest.raises(cowcloop.ReadOnlyError) as found:
        disk.write(b"x")
    assert found.value.filename == str(image)


def test_serve_raises_what_open_does(image: Path, tmp_path: Path) -> None:
    other, bad, dirty = tmp_path / "other.cow", tmp_path / "bad.img", tmp_path / "dirty.cow"
    other.write_bytes(cowfile.build(cloop.sample(16 * 4096, 4096, seed=2), {}))
    bad.write_bytes(cloop.header("V2.0", 1000, 1) + bytes(100))
    dirty.write_bytes(cowfile.build(PLAIN, {}, flags=cowfile.DIRTY))
    busy = tmp_path / "busy.cow"
    with cowcloop.open(image, busy):
        kinds: tuple[tuple[tuple[Path, ...], type[cowcloop.CowcloopError]], ...] = (
            ((tmp_path / "missing",), cowcloop.NotFoundError),
            ((tmp_path,), cowcloop.StorageError),
            ((image, tmp_path / "no" / "such.cow"), cowcloop.NotFoundError),
            ((image, other), cowcloop.MismatchError),
            ((bad,), cowcloop.ImageFormatError),
            ((image, bad), cowcloop.ImageFormatError),
            ((image, dirty), cowcloop.DirtyError),
            ((image, busy), cowcloop.BusyError),
        )
        for names, kind in kinds:
            with pytest.raises(kind) as opened:
                cowcloop.open(*names)
            with pytest.raises(cowcloop.ServerError) as served:
                cowcloop.serve(*names)
            assert isinstance(served.value, kind), names
            assert str(served.value) == str(opened.value)
            for name in ("errno", "filename"):
                assert getattr(served.value, name, None) == getattr(opened.value, name, None)
            assert str(pickle.loads(pickle.dumps(served.value))) == str(served.value)


def test_help_begins_with_what_is_used_first() -> None:
    code = "import cowcloop; help(cowcloop)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    beginning = "\n".join(lines[:20])
    assert "cowcloop.open(" in beginning
    assert "cowcloop.serve(" in beginning
    assert "plugin" not in done.stdout
    assert "ServerError" in done.stdout


def test_an_image_is_no_cowfile(image: Path, tmp_path: Path) -> None:
    soft = tmp_path / "soft"
    soft.symlink_to(image)
    for use in (cowcloop.open, cowcloop.serve):
        for again in (image, soft):
            with pytest.raises(cowcloop.InvalidInputError, match="given as a cowfile"):
                use(image, again)
    other = tmp_path / "other.img"
    other.write_bytes(image.read_bytes())
    with pytest.raises(cowcloop.ImageFormatError, match="begins as a compressed image does"):
        cowcloop.open(image, other)


def test_what_to_do_is_named_as_the_program_has_it(image: Path, tmp_path: Path) -> None:
    dirty = tmp_path / "dirty.cow"
    dirty.write_bytes(cowfile.build(PLAIN, {}, flags=cowfile.DIRTY))
    with pytest.raises(cowcloop.DirtyError) as raised:
        cowcloop.open(image, dirty)
    error = raised.value
    assert "repair=True" in error.remedy
    assert str(error) == f"{error.problem}; {error.remedy}"
    shown = refused("extract", image, dirty, "-", says="repair it first with `cowcloop cow repair`")
    assert error.problem in shown
