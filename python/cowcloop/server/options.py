"""What to serve and how: the options of `serve`, `attach` and `cowcloop.serve()`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property

from cowcloop.files import MEMORY
from cowcloop.source import Source, file_of, locate


@dataclass(frozen=True)
class Tls:
    """nbdkit's TLS options: `mode` is off, on or require; the rest are paths.

    nbdkit takes keys without a mode, and serves in the clear: here they imply `require`. ValueError
    where the mode does not keep what the rest promises.
    """

    mode: str | None = None
    certificates: str | None = None
    psk: str | None = None
    verify_peer: bool = False

    def __post_init__(self) -> None:
        given = {
            "--tls-certificates": self.certificates is not None,
            "--tls-psk": self.psk is not None,
            "--tls-verify-peer": self.verify_peer,
        }
        option = next((name for name, is_given in given.items() if is_given), None)
        if option is None:
            return
        if self.mode == "off":
            raise ValueError(
                f"--tls off serves in the clear, whatever {option} says: leave out one"
            )
        if self.mode == "on" and self.verify_peer:
            raise ValueError("--tls on lets clients in unverified: --tls-verify-peer needs require")
        if self.mode is None:
            object.__setattr__(self, "mode", "require")


@dataclass(frozen=True)
class ServeOptions:
    """One device to serve. Sizes are in bytes; None leaves a choice to the server.

    `preload` is a number of the image's blocks. With `sessions`, a directory, each export name is
    a device of its own over the one image, with a cowfile there.
    """

    image: str
    cows: tuple[str, ...] = ()
    unix: str | None = None
    tcp: tuple[str, int] | None = None
    device: str | None = None
    read_only: bool = False
    repair: bool = False
    strict: bool = False
    cache: int | None = None
    threads: int | None = None
    memory_limit: int | None = None
    size: int | None = None
    preload: int | None = None
    sessions: str | None = None
    max_sessions: int | None = None
    session_quota: int | None = None
    tls: Tls = field(default_factory=Tls)
    nbdkit_args: tuple[str, ...] = ()
    nbdkit_verbose: bool = False

    @cached_property
    def source(self) -> Source:
        """Where the image lies, looked up once."""
        return locate(self.image)

    @property
    def writable_cow(self) -> str | None:
        """The absolute path of the cowfile that is written, if there is one on disk."""
        if not self.cows or self.read_only or self.cows[-1] == MEMORY:
            return None
        return absolute(self.cows[-1])

    @property
    def runs_command(self) -> bool:
        """Whether nbdkit is to run a command with the device, and end after it."""
        words = (word.partition("=")[0] for word in self.nbdkit_args)
        return any(len(word) > 3 and "--run".startswith(word) for word in words)

    def typed_paths(self) -> dict[str, str]:
        """Each absolute path that nbdkit is given, and the path as the user wrote it."""
        paths = (self.image, file_of(self.source), *self.cows, self.sessions)
        return {absolute(path): path for path in paths if path not in (None, MEMORY)}


def absolute(path: str) -> str:
    """An absolute path to the same file (`..` behind a symbolic link is left alone)."""
    return os.path.join(os.getcwd(), path)
