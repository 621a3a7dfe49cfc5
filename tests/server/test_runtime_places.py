"""XDG_RUNTIME_DIR that cannot be used: what is said helps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.programs import cowcloop, program, refused, run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(1 << 20))
    return path


def _remedy(line: str) -> None:
    assert "set XDG_RUNTIME_DIR to" in line
    assert "--unix" not in line


@pytest.mark.parametrize("command", ["attach", "list"])
def test_a_file_in_its_place(image: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    words = [image] if command == "attach" else []
    env = {"XDG_RUNTIME_DIR": str(tmp_path / "file")}
    _remedy(refused(command, *words, env=env, says="Not a directory"))


@pytest.mark.parametrize("command", ["attach", "list"])
def test_a_long_name(image: Path, tmp_path: Path, command: str) -> None:
    words = [image] if command == "attach" else []
    inside = len("/cowcloop/abcdef/control.sock")
    # What is asked for is enough, and less is not.
    for length, fits in ((107 - inside, True), (108 - inside, False), (200, False)):
        folder = Path("/tmp") / f"xdg-{os.getpid()}-".ljust(length - 5, "l")
        assert len(str(folder)) == length
        folder.mkdir()
        env = {"XDG_RUNTIME_DIR": str(folder)}
        try:
            if fits:
                cowcloop(command, *words, env=env)
                cowcloop("detach", "--all", env=env)
            else:
                line = refused(command, *words, env=env, says=("107", "shorter name"))
                assert f"{length + inside} bytes" in line
                _remedy(line)
        finally:
            run("rm", "-r", folder)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("command", ["attach", "list"])
def test_a_read_only_medium(image: Path, tiny_tmpfs: Path, command: str, exists: bool) -> None:
    if exists:
        (tiny_tmpfs / "cowcloop").mkdir(mode=0o755)
    words = [image] if command == "attach" else []
    mount = program("mount", "mount")
    run(mount, "-o", "remount,ro", tiny_tmpfs)
    try:
        env = {"XDG_RUNTIME_DIR": str(tiny_tmpfs)}
        _remedy(refused(command, *words, env=env, says="Read-only file system"))
    finally:
        run(mount, "-o", "remount,rw", tiny_tmpfs)
