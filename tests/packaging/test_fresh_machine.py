"""What is said and done on a machine that lacks what a build needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.programs import ROOT, one_line

(WANTED,) = re.findall(r'^rust-version = "(1\.\d+)"', (ROOT / "Cargo.toml").read_text(), re.M)
NEW, OLD = f"{WANTED}.0", "1.63.0"

_APT_CACHE = r"""
case $2 in
rustc | cargo) version=1.63.0+dfsg1-2 ;;
gone) exit 0 ;;
*) version=1.99.0+dfsg1-1 ;;
esac
printf '%s:\n  Installed: (none)\n  Candidate: %s\n' "$2" "$version"
"""


class Machine:
    """A PATH with nothing but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.log = folder / "log"
        self.scripts = folder / "scripts"
        for path in (self.bin, self.home, self.scripts):
            path.mkdir()
        for name in ("dirname", "env", "sed", "tr"):
            (self.bin / name).symlink_to(shutil.which(name) or "")
        self.program("ls", "exit 0")  # apt has its lists
        self.program("apt-cache", _APT_CACHE)
        self.program("apt-get", f'echo "$@" >>{self.log}')
        shutil.copy(ROOT / "Cargo.toml", folder)

    def program(self, name: str, script: str, folder: Path | None = None) -> Path:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def rust(self, version: str, folder: Path | None = None) -> None:
        for name in ("cargo", "rustc"):
            self.program(name, f"echo '{name} {version} (0123 2022-01-01)'", folder)

    def user(self, number: int) -> None:
        self.program("id", f"echo {number}")

    def install(self, *more: str, expect: int) -> str:
        """What install-deps.sh says with these packages among those that a build needs."""
        text = (ROOT / "scripts/install-deps.sh").read_text()
        lines = "".join(f"\nbuild {package} /nowhere" for package in more)
        script = self.scripts / "install-deps.sh"
        script.write_text(re.sub(r'packages="\n(?s:.*?)\n"', f'packages="{lines}\n"', text))
        path = f"{self.bin}:{self.home}/.cargo/bin"
        done = subprocess.run(
            ["/bin/sh", script, "build"],
            env={"PATH": path, "HOME": str(self.home)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == expect, done.stderr
        return done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def backend(code: str, path: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Python code with the build backend in it."""
    script = f"import sys; sys.path.insert(0, 'build_backend'); import cowcloop_build; {code}"
    env = {"PATH": path, "HOME": str(home)}
    words = [sys.executable, "-c", script]
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)


def test_pip_with_the_distributions_old_rust(machine: Machine) -> None:
    machine.rust(OLD)
    done = backend("cowcloop_build.get_requires_for_build_wheel()", str(machine.bin), machine.home)
    assert done.returncode == 1
    one_line(done.stderr, ("1.63", f"Rust {WANTED} or newer", "cargo-web", "rustup.rs"))


def test_pip_with_rustups_old_rust(machine: Machine) -> None:
    folder = machine.home / ".cargo/bin"
    machine.rust(OLD, folder)
    done = backend("cowcloop_build.get_requires_for_build_wheel()", str(folder), machine.home)
    assert done.returncode == 1
    one_line(done.stderr, ("1.63", f"Rust {WANTED} or newer", "rustup update"))


def test_pip_without_rust(machine: Machine) -> None:
    done = backend("cowcloop_build.get_requires_for_build_wheel()", str(machine.bin), machine.home)
    assert done.returncode == 1
    one_line(done.stderr, ("rustc", "not found", "cargo-web", "rustup.rs"))


def test_the_backend_runs_the_maturin_that_it_imports(machine: Machine) -> None:
    """Whatever is on PATH: pip runs it with another one there, or none."""
    machine.program("maturin", "exit 1")
    code = "cowcloop_build.find_maturin(); import shutil; print(shutil.which('maturin'))"
    done = backend(code, str(machine.bin), machine.home)
    assert done.stdout.strip() == os.path.join(sys.prefix, "bin", "maturin")


def test_without_sudo_the_packages_are_listed(machine: Machine) -> None:
    machine.user(1000)
    said = machine.install("some", "more", expect=1)
    one_line(said, ("as root, run: apt-get install", "some more cargo-web rustc-web"))
    assert not machine.log.exists()


def test_a_package_that_the_distribution_lacks_stops_nothing(machine: Machine) -> None:
    machine.user(0)
    machine.rust(NEW)
    one_line(machine.install("some", "gone", expect=0), ("not in this distribution: gone",))
    assert machine.log.read_text().splitlines() == [
        "-q update",
        "-q install -y --no-install-recommends some",
    ]


def test_nothing_is_asked_when_only_such_packages_are_missing(machine: Machine) -> None:
    machine.user(0)
    machine.rust(NEW)
    one_line(machine.install("gone", expect=0), ("not in this distribution: gone",))
    assert not machine.log.exists()


def test_an_old_rust_of_rustups_is_named(machine: Machine) -> None:
    machine.rust(OLD, machine.home / ".cargo/bin")
    one_line(machine.install(expect=1), (f"Rust {WANTED} or newer", "rustup update"))
