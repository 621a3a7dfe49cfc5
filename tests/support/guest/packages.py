"""Debian's packages, fetched and unpacked without being installed: apt with folders of its own."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from support.images import once
from support.programs import missing, program

SUITE = "trixie"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PATIENCE = 600
_DAY = 86400


def cache() -> Path:
    """Where what was fetched and made stays from one run of the tests to the next."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cowcloop" / "guest"


def call(command: Sequence[str | os.PathLike[str]], cwd: Path | None = None) -> str:
    """Run a program that this lab needs; its standard output. A failure skips, or fails in CI."""
    done = subprocess.run(
        [os.fspath(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_PATIENCE,
        check=False,
        cwd=cwd,
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        last = said.splitlines()[-1] if said else f"exit status {done.returncode}"
        missing(f"the guest cannot be made: {Path(command[0]).name}: {last}")
    return done.stdout


@functools.cache
def mirror() -> str:
    """The mirror of Debian's main archive that this machine's apt uses."""
    if platform.machine() != "x86_64":
        missing(f"the guest is an x86-64 machine, and this one is {platform.machine()}")
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian":
        missing("the guest is made from a mirror of Debian's, and this machine's apt has another")
    # Known without apt's lists, which may have been removed.
    fields = "--format=$(RELEASE) $(COMPONENT) $(REPO_URI)"
    printed = call([program("apt-get", "apt"), "indextargets", "--no-release-info", fields])
    targets = [line.split(" ", 2) for line in printed.splitlines()]
    wanted = [release["VERSION_CODENAME"], "main"]
    found = [uri for *suite, uri in targets if suite == wanted]
    # Other archives have suites of the same name.
    found.sort(key=lambda uri: not uri.rstrip("/").endswith("/debian"))
    if not found:
        missing("the guest cannot be made: apt knows no mirror of Debian's main archive")
    return found[0]


def apt_options(suite: str) -> list[str]:
    """Options with which apt knows one suite and nothing that is installed."""
    folder = cache() / "apt" / suite
    known = folder / "lists-are-there"
    # What a mirror had a day ago it may have replaced.
    with contextlib.suppress(FileNotFoundError):
        if time.time() - known.stat().st_mtime > _DAY:
            known.unlink()
    once(known, lambda part: _update(suite, part))
    return _options(folder)


def fetch(suite: str, names: Sequence[str], *, alone: bool = False) -> list[Path]:
    """Packages with all that they depend on (`alone`: without): the files that were fetched."""
    key = hashlib.sha256(repr((sorted(names), alone)).encode()).hexdigest()[:16]
    place = cache() / "apt" / suite / f"debs-{key}"

    def download(part: Path) -> None:
        apt = [program("apt-get", "apt"), *apt_options(suite), "-qq"]
        if alone:
            part.mkdir(parents=True, exist_ok=True)
            call([*apt, "download", *names], cwd=part)
            return
        (part / "partial").mkdir(parents=True, exist_ok=True)
        apt += ["-o", f"Dir::Cache::Archives={part}/", "-y", "--no-install-recommends"]
        call([*apt, "--download-only", "install", *names])

    return sorted(once(place, download).glob("*.deb"))


def unpack(debs: Sequence[Path], folder: Path) -> None:
    """The files of packages, as they would lie below ``/``."""
    for deb in debs:
        call([program("dpkg", "dpkg"), "-x", deb, folder])


def _options(folder: Path) -> list[str]:
    values = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        # What is below a home directory is out of reach for apt's own user.
        "APT::Sandbox::User": "",
    }
    return [word for name, value in values.items() for word in ("-o", f"{name}={value}")]


def _update(suite: str, done: Path) -> None:
    folder = done.parent
    for name in ("lists/partial", "cache/archives/partial"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    if not Path(_KEYRING).exists():
        missing(f"{_KEYRING} is not there (Debian package debian-archive-keyring)")
    (folder / "status").touch()
    line = f"deb [signed-by={_KEYRING}] {mirror()} {suite} main\n"
    (folder / "sources.list").write_text(line)
    call([program("apt-get", "apt"), *_options(folder), "-qq", "update"])
    done.touch()
