"""Programs of the distribution that cowcloop runs: where they are, and what to install if not."""

from __future__ import annotations

import os
import shutil

from cowcloop.errors import CowcloopError

# Tools for the administrator, which a user's PATH on Debian leaves out.
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"

_INSTALLERS = (
    ("apt-get", "apt install"),
    ("dnf", "dnf install"),
    ("zypper", "zypper install"),
    ("pacman", "pacman -S"),
    ("apk", "apk add"),
)


class MissingProgram(CowcloopError, FileNotFoundError):
    """A program that a command needs is not installed; the message names its package."""


def find_program(name: str, package: str) -> str:
    """The path of a program; MissingProgram names the package when it is not installed."""
    check_programs((name, package))
    return os.path.abspath(_which(name) or name)


def check_programs(*wanted: tuple[str, str]) -> None:
    """Look for programs, each with its package; MissingProgram names all that are missing.

    Other files that a program needs, and directories, are named by their whole path.
    """
    missing = [(name, package) for name, package in wanted if _which(name) is None]
    if not missing:
        return
    installer = next((use for tool, use in _INSTALLERS if shutil.which(tool)), "apt install")
    *others, last = (name for name, _ in missing)
    names = f"{', '.join(others)} and {last}" if others else last
    packages = " ".join(dict.fromkeys(package for _, package in missing))
    verb = "is" if len(missing) == 1 else "are"
    raise MissingProgram(f"{names} {verb} not installed: {installer} {packages}")


def _which(name: str) -> str | None:
    if name.startswith("/"):
        return name if os.path.exists(name) else None
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=f"{path}:{_SYSTEM_FOLDERS}")
