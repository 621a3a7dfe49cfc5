"""The wheel in clean virtual environments, the Debian package, and the one place of the version."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cowcloop
import pytest
from support import images, programs
from support.programs import ROOT, missing, program, run

_QUIET = ["--quiet", "--disable-pip-version-check"]


def version() -> str:
    """What Cargo.toml says, where the version is kept."""
    found = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _interpreters() -> list[str]:
    """One Python of each minor version that the machine has, free-threaded ones left out."""
    names = ["/usr/bin/python3"]
    names += [shutil.which(f"python3.{minor}") or "" for minor in range(9, 30)]
    names += glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python3"))
    found: dict[str, str] = {}
    code = (
        "import ensurepip, sys, sysconfig, venv;"
        "sysconfig.get_config_var('Py_GIL_DISABLED') or print(*sys.version_info[:2], sep='.')"
    )
    for name in filter(os.path.exists, names):
        done = subprocess.run([name, "-c", code], capture_output=True, text=True, check=False)
        minor = done.stdout.strip()
        if minor and int(minor.split(".")[1]) >= 9:
            found.setdefault(minor, name)
    return list(found.values())


@pytest.fixture(scope="session")
def wheel(shared: Path) -> Path:
    """The wheel, built from the tree."""

    def make(folder: Path) -> None:
        if shutil.which("cargo") is None:
            missing("cargo is not installed")
        run(ROOT / "scripts" / "make-wheel.sh", folder)

    (found,) = images.once(shared / "wheel", make).glob("cowcloop-*.whl")
    return found


def fetch(python: Path | str, wheel: Path, folder: Path) -> None:
    """Put the wheel, and what an interpreter needs beside it, into a folder."""
    options: list[programs.Argument] = ["--only-binary=:all:", "--dest", folder]
    if run(python, "-m", "pip", *_QUIET, "download", *options, wheel, expect=None).returncode:
        missing("the packages that cowcloop needs cannot be downloaded")


def test_what_is_in_the_wheel(wheel: Path) -> None:
    assert wheel.name.startswith(f"cowcloop-{version()}-cp39-abi3-manylinux_2_")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "cowcloop/_core.abi3.so",
        "cowcloop/_core.pyi",
        "cowcloop/lib/cowcloopd",
        "cowcloop/lib/nbdkit-cowcloop-plugin.so",
        "cowcloop/py.typed",
        f"cowcloop-{version()}.data/data/share/man/man1/cowcloop.1",
        f"cowcloop-{version()}.data/data/share/man/man5/cowfile.5",
        f"cowcloop-{version()}.dist-info/licenses/THIRD-PARTY-LICENSES.txt",
    ):
        assert name in names
    metadata = zipfile.ZipFile(wheel).read(f"cowcloop-{version()}.dist-info/METADATA").decode()
    assert f"\nVersion: {version()}\n" in metadata
    assert "\nLicense-Expression: MIT OR Apache-2.0\n" in metadata


@pytest.mark.parametrize("interpreter", _interpreters())
def test_it_works_in_a_clean_environment(wheel: Path, tmp_path: Path, interpreter: str) -> None:
    run(interpreter, "-m", "venv", tmp_path / "venv")
    python, script = tmp_path / "venv/bin/python", tmp_path / "venv/bin/cowcloop"
    fetch(python, wheel, tmp_path / "wheels")
    offline: list[programs.Argument] = ["--no-index", "--find-links", tmp_path / "wheels"]
    run(python, "-m", "pip", *_QUIET, "install", *offline, "cowcloop")
    assert run(script, "--version").stdout.decode().split() == ["cowcloop", version()]
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(b"sample" * 100_000)
    run(script, "create", raw, image)
    program("nbdkit", "nbdkit")
    code = (
        "import subprocess, sys, cowcloop\n"
        "with cowcloop.serve('image', 'c') as server:\n"
        "    subprocess.run([sys.argv[1], '--size', server.uri], check=True)\n"
        "with cowcloop.open('image', 'c') as disk:\n"
        "    print(disk.read(12).decode(), cowcloop.__version__)\n"
    )
    done = run(python, "-I", "-c", code, program("nbdinfo", "libnbd-bin"), cwd=tmp_path)
    assert done.stdout.decode().split() == ["655360", "samplesample", version()]
    code = "from cowcloop.server.daemon import daemon_path as path; print(path())"
    daemon = run(python, "-I", "-c", code, cwd=tmp_path).stdout.decode().strip()
    assert run(daemon, "--version").stdout.decode().split() == ["cowcloopd", version()]


def test_the_debian_package(wheel: Path, tmp_path: Path) -> None:
    program("dpkg-deb", "dpkg")
    fetch(sys.executable, wheel, tmp_path)
    finding = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    run(ROOT / "scripts/make-deb.sh", tmp_path, env=finding)
    (package,) = tmp_path.glob("cowcloop_*.deb")
    assert package.name.startswith(f"cowcloop_{version()}-1_")
    run("dpkg-deb", "--extract", package, tmp_path / "root")
    root = tmp_path / "root"
    assert len(list(root.glob("usr/lib/*/nbdkit/plugins/nbdkit-cowcloop-plugin.so"))) == 1
    assert os.access(root / "usr/lib/cowcloop/cowcloop/lib/cowcloopd", os.X_OK)
    # Others' would be in the way of their own packages.
    manuals = {path.name for path in (root / "usr/share/man").rglob("*") if path.is_file()}
    assert manuals == {"cowcloop.1.gz", "nbdkit-cowcloop-plugin.1.gz", "cowfile.5.gz"}
    assert (root / "usr/lib/systemd/system/cowcloop@.service").is_file()
    assert os.access(root / "etc/init.d/cowcloop-root", os.X_OK)
    if shutil.which("lintian"):
        done = run("lintian", "--allow-root", "--fail-on=warning", package, expect=None)
        assert (done.returncode, done.stdout.decode()) == (0, "")


def test_the_version_is_kept_in_one_place() -> None:
    assert cowcloop.__version__ == version()
    named = f'version = "{version()}"'
    stated = [
        name
        for name in run("git", "ls-files", "*.toml", "*.py", cwd=ROOT).stdout.decode().split()
        if named in (ROOT / name).read_text()
    ]
    assert stated == ["Cargo.toml"]
