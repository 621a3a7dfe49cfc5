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
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=f"{path}:{_SYSTEM_FOLDERS}")
    if found is None:
        installer = next((use for tool, use in _INSTALLERS if shutil.which(tool)), "apt install")
        raise MissingProgram(f"{name} is not installed: {installer} {package}")
    return os.path.abspath(found)
