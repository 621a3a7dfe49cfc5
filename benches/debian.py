"""Packages of Debian 13, fetched and unpacked without being installed, as the tests do it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benches.material import cache_folder
from benches.model import UnavailableError

# The tests' own modules.
sys.path.append(str(Path(__file__).parents[1] / "tests"))


def unpacked(name: str, *, alone: bool = False) -> Path:
    """A folder with the files of a package and all that it needs (`alone`: without)."""
    from support.guest.packages import SUITE, fetch, unpack
    from support.images import once

    def make(part: Path) -> None:
        part.mkdir(parents=True, exist_ok=True)
        unpack(fetch(SUITE, [name], alone=alone), part)

    try:
        return once(cache_folder() / "debian" / name, make)
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        # It is how the tests say that something is missing.
        raise UnavailableError(str(error)) from None


def command(folder: Path, program: str) -> list[str]:
    """A program of such a folder, with the libraries there: this machine's may be older."""
    libraries = folder / "usr/lib/x86_64-linux-gnu"
    loader = folder / "usr/lib64/ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", str(libraries), str(folder / program)]
