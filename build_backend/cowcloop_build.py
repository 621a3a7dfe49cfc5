"""PEP 517 backend: builds the nbdkit plugin and cowcloopd, then hands over to maturin.

maturin builds one ``cdylib``, the module ``cowcloop._core``. The wheel carries two more compiled
files, the nbdkit plugin and the program ``cowcloopd``, which are put beside the Python files for
maturin to take along.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import maturin

ROOT = Path(__file__).resolve().parent.parent
# In a folder that is no package, so that Python does not take a library for a module.
FOLDER = ROOT / "python" / "cowcloop" / "lib"
# Their names there, the crates, and what cargo calls what it makes of these.
PLUGIN = ("nbdkit-cowcloop-plugin.so", "cowcloop-nbdkit", "nbdkit_cowcloop_plugin")
DAEMON = ("cowcloopd", "cowcloop-daemon", "cowcloopd")


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """What to fetch from PyPI for the build: cmake, where the system has none."""
    need_rust()
    need("cc", "install a C compiler (Debian, Ubuntu: gcc)")
    return [] if shutil.which("cmake") else ["cmake>=3.20,<5"]


get_requires_for_build_editable = get_requires_for_build_wheel


def get_requires_for_build_sdist(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Nothing: an sdist is made of sources only."""
    return []


def prepare_metadata_for_build_wheel(
    directory: str, config_settings: dict[str, Any] | None = None
) -> str:
    """The wheel's metadata, without a build."""
    find_maturin()
    name: str = maturin.prepare_metadata_for_build_wheel(directory, config_settings)
    return name


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_wheel(
    directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build a wheel with the module, the plugin and the program in it."""
    build_programs()
    find_maturin()
    name: str = maturin.build_wheel(directory, config_settings, metadata_directory)
    return name


def build_editable(
    directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """As a wheel, with all three placed in the source tree."""
    build_programs()
    find_maturin()
    name: str = maturin.build_editable(directory, config_settings, metadata_directory)
    return name


def build_sdist(directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """Pack every file of the repository."""
    find_maturin()
    name: str = maturin.build_sdist(directory, config_settings)
    return name


def build_programs() -> None:
    """Build the plugin and the program, and put them beside the Python files."""
    need("cmake", "install it (Debian, Ubuntu: cmake; or pip install cmake)")
    cargo = need_rust()
    for name, crate, target in (PLUGIN, DAEMON):
        build_program(cargo, name, crate, target)


def build_program(cargo: str, name: str, crate: str, target: str) -> None:
    """Build one crate and put what cargo makes of it beside the Python files."""
    command = [cargo, "rustc", "--release", "--locked", "--package", crate]
    # As maturin does for the module: only the last link drops the symbols, so that every earlier
    # step is shared with other builds.
    command += ["--message-format=json-render-diagnostics", "--", "-C", "link-arg=-s"]
    print("Running", *command, file=sys.stderr, flush=True)
    build = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if build.returncode != 0:
        raise SystemExit(f"cowcloop: cargo could not build {crate}: see its messages above")
    # Written beside it and renamed: a running server has the old file mapped.
    FOLDER.mkdir(exist_ok=True)
    new = FOLDER / f".{name}.{os.getpid()}"
    shutil.copyfile(made(build.stdout, crate, target), new)
    new.chmod(0o755)
    new.replace(FOLDER / name)


def made(messages: str, crate: str, target: str) -> Path:
    """The file that cargo made, from its messages: one JSON object per line."""
    for line in messages.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == target:
            for name in message["filenames"]:
                if name == message["executable"] or name.endswith(".so"):
                    return Path(name)
    raise SystemExit(f"cowcloop: cargo built {crate} but named no {target}")


def find_maturin() -> None:
    """Put the program of the imported ``maturin`` first on PATH: the module runs it by name.

    pip does so in an environment of its own making, not with ``--no-build-isolation``.
    """
    for file in importlib.metadata.files("maturin") or []:
        if file.name == "maturin" and file.parent.name == "bin":
            folder = str(Path(file.locate()).resolve().parent)
            os.environ["PATH"] = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])
            return


def need_rust() -> str:
    """The path of a cargo that is new enough; else ends with one line that says which is."""
    manifest = (ROOT / "Cargo.toml").read_text()
    (wanted,) = re.findall(r'^rust-version = "1\.(\d+)"', manifest, re.MULTILINE)
    remedy = (
        f"Rust 1.{wanted} or newer is needed: on Debian and Ubuntu from the packages cargo and "
        "rustc where they are new enough, on Debian 12 and 13 from cargo-web and rustc-web, "
        "elsewhere from https://rustup.rs"
    )
    for program in ("rustc", "cargo"):
        path = need(program, remedy)
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        version = re.match(rf"{program} 1\.(\d+)\.", said.stdout)
        if version is None:
            raise SystemExit(f"cowcloop: {path} does not run: {said.stderr.strip()}")
        if int(version[1]) < int(wanted):
            if Path(path).parent == Path.home() / ".cargo" / "bin":
                remedy = f"Rust 1.{wanted} or newer is needed: run rustup update"
            raise SystemExit(f"cowcloop: {path} is version 1.{version[1]}, too old: {remedy}")
    return path


def need(program: str, remedy: str) -> str:
    """The path of a program that the build runs; else ends with one line."""
    path = shutil.which(program)
    if path is None:
        raise SystemExit(f"cowcloop: {program} is needed to build and was not found: {remedy}")
    return path


if __name__ == "__main__":
    # The longest part of a first build shows cargo's progress here; pip would hide it.
    build_programs()
