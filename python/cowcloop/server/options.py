"""What to serve and how: the options of `serve`, `attach` and `cowcloop.serve()`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cowcloop.files import MEMORY
from cowcloop.options import (
    UBLK,
    Path,
    RemoteKeywords,
    ServeKeywords,
    ServerKeywords,
    Tls,
    normal,
    table,
)
from cowcloop.part import is_url
from cowcloop.server.address import parse_tcp
from cowcloop.source import Source, file_of, has_secrets, locate

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class ServeOptions:
    """One device to serve.

    `given` has the options of ServerKeywords by name, sizes in bytes; one that is not there is
    left to the server. With `sessions`, a directory, each export name is a device of its own over
    the one image, with a cowfile there. A device that is served `as_file` is a file of a FUSE
    file system, instead of NBD.
    """

    #: a URL may hold secrets
    image: str = field(repr=False)
    cows: tuple[str, ...] = ()
    tcp: tuple[str, int] | None = None
    #: that of a trace as well
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tls: Tls = field(default_factory=Tls)
    nbdkit_args: tuple[str, ...] = ()
    nbdkit_verbose: bool = False
    as_file: bool = False

    @classmethod
    def of(
        cls,
        image: Path,
        cows: Iterable[Path] = (),
        *,
        nbdkit_verbose: bool = False,
        **given: Unpack[ServeKeywords],
    ) -> ServeOptions:
        """From the keywords of cowcloop.serve(). ValueError says what is wrong with one."""
        values = normal(ServerKeywords, given)
        tcp = values.pop("tcp", None)
        return cls(
            image=os.fsdecode(image),
            cows=tuple(os.fsdecode(cow) for cow in cows),
            tcp=parse_tcp(str(tcp)) if isinstance(tcp, (str, int)) else tcp,
            given=values,
            tls=given.get("tls") or Tls(),
            nbdkit_args=tuple(given.get("nbdkit_args", ())),
            nbdkit_verbose=nbdkit_verbose,
        )

    def with_device(self, device: str) -> ServeOptions:
        """The same, connected to a kernel's device."""
        return replace(self, given={**self.given, "device": device})

    @property
    def unix(self) -> str | None:
        """The Unix socket to listen on."""
        return self.given.get("unix")

    @property
    def device(self) -> str | None:
        """The kernel's device to connect to it, or UBLK for one of its own."""
        return self.given.get("device")

    @property
    def nbd_device(self) -> str | None:
        """The kernel's NBD device to connect to it."""
        return None if self.by_ublk else self.device

    @property
    def by_ublk(self) -> bool:
        """Whether it is to be a block device of its own."""
        return self.device == UBLK

    @property
    def sessions(self) -> str | None:
        """The directory of the sessions' cowfiles."""
        return self.given.get("sessions")

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return bool(self.given.get("read_only"))

    @cached_property
    def source(self) -> Source:
        """Where the image lies, looked up once."""
        far = table(RemoteKeywords)
        return locate(self.image, **{name: self.given[name] for name in far if name in self.given})

    def secrets(self) -> dict[str, str]:
        """The URLs that hold what others must not see, by their parameter."""
        urls = {"image": file_of(self.source), "trace": self.given.get("trace")}
        return {name: url for name, url in urls.items() if url is not None and has_secrets(url)}

    @property
    def writable_cow(self) -> str | None:
        """The absolute path of the cowfile that is written, if there is one on disk."""
        if not self.cows or self.read_only or self.cows[-1] == MEMORY:
            return None
        return absolute(self.cows[-1])

    @property
    def may_write(self) -> bool:
        """Whether there are clients that may write."""
        return bool(self.cows or self.sessions) and not self.read_only

    @property
    def runs_command(self) -> bool:
        """Whether nbdkit is to run a command with the device, and end after it."""
        words = (word.partition("=")[0] for word in self.nbdkit_args)
        return any(len(word) > 3 and "--run".startswith(word) for word in words)

    def typed_paths(self) -> dict[str, str]:
        """Each absolute path that the server is given, and the path as the user wrote it."""
        traces = (self.given.get("record_trace"), self.given.get("trace"))
        paths: tuple[str | None, ...] = (*self.cows, self.sessions, *traces)
        if not is_url(self.image):
            paths = (self.image, file_of(self.source), *paths)
        return {absolute(path): path for path in paths if path not in (None, MEMORY)}


def absolute(path: str) -> str:
    """An absolute path to the same file (`..` behind a symbolic link is left alone), or a URL."""
    return path if is_url(path) else os.path.join(os.getcwd(), path)
