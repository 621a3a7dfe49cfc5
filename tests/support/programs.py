"""Runs the real programs as a person would, and holds cowcloop to its manners."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Union

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: With this, whatever a machine lacks is a failure and not a reason to skip.
REQUIRE_ALL = os.environ.get("CI") == "true" or os.environ.get("COWCLOOP_REQUIRE_ALL") == "1"
#: Seconds after which a program that should have ended is taken to hang.
PATIENCE = 300

Argument = Union[str, "os.PathLike[str]"]


def missing(reason: str) -> NoReturn:
    """Skips the test, or fails it where everything is required."""
    if REQUIRE_ALL:
        pytest.fail(f"{reason} (required here)", pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def cache_home(folder: Path) -> Iterator[Path]:
    """An XDG_CACHE_HOME of the test's own: in its folder or, where that is too full, in memory.

    A cache without a limit leaves a tenth of its file system free: see --cache-limit.
    """
    if _has_room(folder):
        yield folder / "cache"
        return
    memory = Path("/dev/shm")
    if not memory.is_dir() or not _has_room(memory):
        pytest.skip(f"a cache leaves a tenth of the file system free: {folder} has no more")
    home = Path(tempfile.mkdtemp(prefix="cct-", dir=memory))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _has_room(folder: Path) -> bool:
    """Whether caches without a limit keep there what tests fetch."""
    usage = shutil.disk_usage(folder)
    return usage.free >= usage.total // 10 + (256 << 20)


def find(name: str) -> str | None:
    """The path of a program, if the machine has it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path)


def program(name: str, package: str) -> str:
    """The path of a program from the distribution."""
    found = find(name)
    if found is None:
        if not _in_distribution(package):
            pytest.skip(f"this distribution has no {name} (Debian package {package})")
        missing(f"{name} is not installed (Debian package {package})")
    return found


@functools.cache
def _in_distribution(package: str) -> bool:
    """Whether a package can be installed here; taken for granted where apt does not say."""
    try:
        done = subprocess.run(["apt-cache", "show", package], capture_output=True, check=False)
    except FileNotFoundError:
        return True
    return done.returncode == 0


def cowcloop_path() -> str:
    """The cowcloop under test."""
    named = os.environ.get("COWCLOOP")
    if named:
        return named
    for folder in (Path(sys.executable).parent, ROOT / ".venv" / "bin"):
        if (folder / "cowcloop").exists():
            return str(folder / "cowcloop")
    found = shutil.which("cowcloop")
    if found is None:
        missing("cowcloop is not built: run `make build`")
    return found


def run(
    *command: Argument,
    expect: int | None = 0,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program to its end; its exit code must be ``expect`` (None: any)."""
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run(
        [os.fspath(part) for part in command],
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
        **options,
    )
    if expect is not None and done.returncode != expect:
        words = " ".join(map(str, command))
        pytest.fail(
            f"{words}\nexit code {done.returncode}, expected {expect}\n"
            f"stdout: {done.stdout[-2000:]!r}\nstderr: {done.stderr.decode(errors='replace')}"
        )
    return done


def finding(folder: Path) -> dict[str, str]:
    """The environment in which Python looks for modules in a folder first."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def mannered(stderr: str) -> None:
    """No user ever sees a traceback or a panic."""
    assert "Traceback" not in stderr, stderr
    assert "panicked" not in stderr, stderr
    assert "RUST_BACKTRACE" not in stderr, stderr


def cowcloop(
    *arguments: Argument,
    expect: int | None = 0,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs a cowcloop command to its end."""
    done = run(cowcloop_path(), *arguments, expect=expect, stdin=stdin, env=env, cwd=cwd)
    mannered(done.stderr.decode())
    return done


def refused(*arguments: Argument, says: tuple[str, ...] | str = (), **options: Any) -> str:
    """A command that the input, the medium or the system refuses: one clear line, exit 1."""
    done = cowcloop(*arguments, expect=1, **options)
    return one_line(done.stderr.decode(), says)


def one_line(stderr: str, says: tuple[str, ...] | str = ()) -> str:
    """Exactly one line that begins with the program's name and holds each of ``says``."""
    lines = stderr.splitlines()
    assert len(lines) == 1, f"expected one line of error: {stderr!r}"
    line = lines[0]
    assert line.startswith("cowcloop: "), line
    # Directories are left out: pytest names them after the test.
    text = re.sub(r"/[^\s'\"]*/", "", line).lower()
    for word in [says] if isinstance(says, str) else says:
        assert word.lower() in text, f"{word!r} is not in {line!r}"
    return line


def peak_memory(*arguments: Argument, expect: int = 0) -> tuple[int, str]:
    """Bytes that a cowcloop command took in memory at most, and its standard error."""
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL,"
        " stdout=subprocess.DEVNULL, stderr=2)\n"
        "_, status, usage = os.wait4(child.pid, 0)\n"
        "print(usage.ru_maxrss, os.waitstatus_to_exitcode(status))\n"
    )
    done = run(sys.executable, "-c", script, cowcloop_path(), *arguments)
    mannered(done.stderr.decode())
    kilobytes, code = map(int, done.stdout.split())
    assert code == expect, done.stderr
    return kilobytes * 1024, done.stderr.decode()
