from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, final

from _typeshed import ReadableBuffer, StrPath, WriteableBuffer

from cowcloop.errors import CowcloopError as CowcloopError
from cowcloop.part import Remote
from cowcloop.source import Source

__all__ = [
    "Assembly",
    "Checker",
    "Compressor",
    "CowcloopError",
    "Device",
    "RemoteFile",
    "__version__",
    "check_output",
    "check_taken",
    "commit",
    "cow_info",
    "cow_merge",
    "cow_pack",
    "cow_rebase",
    "cow_repair",
    "cow_snapshot",
    "cow_unpack",
    "create",
    "device_map",
    "digest",
    "extract",
    "image_info",
    "kept",
    "name_commands",
    "on_warning",
    "pull",
    "redacted",
    "sniff",
    "take_place",
    "trace_info",
    "verify",
    "write_output",
]

__version__: str

@final
class Device:
    def __new__(
        cls,
        image: Source,
        cows: Sequence[StrPath] = ...,
        *,
        read_only: bool = False,
        create: bool = False,
        repair: bool = False,
        cache: int | None = None,
        threads: int = 0,
        memory_limit: int | None = None,
        strict: bool = False,
        size: int | None = None,
    ) -> Device: ...
    @property
    def size(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def description(self) -> str: ...
    def pread(self, length: int, offset: int) -> bytes: ...
    def pread_into(self, buffer: WriteableBuffer, offset: int) -> int: ...
    def pwrite(self, buffer: ReadableBuffer, offset: int) -> int: ...
    def write_zeroes(self, offset: int, length: int, *, fast: bool = False) -> None: ...
    def trim(self, offset: int, length: int) -> None: ...
    def flush(self) -> None: ...
    def prefetch(self, offset: int, length: int) -> None: ...
    def extents(self, offset: int, length: int) -> list[tuple[int, int, bool]]: ...
    def status(self) -> dict[str, Any]: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...
    def __reduce__(self) -> NoReturn: ...

@final
class Compressor:
    def __new__(
        cls,
        *,
        block_size: int = 65536,
        level: int | str | None = None,
        format: str = "v2",
        codec: str = "zlib",
        footer: bool = False,
    ) -> Compressor: ...
    def compress_range(
        self, source: StrPath, offset: int, length: int
    ) -> tuple[bytes, bytes, int, int]: ...
    def compress_bytes(
        self, name: str, offset: int, data: bytes
    ) -> tuple[bytes, bytes, int, int]: ...

@final
class Assembly:
    def __new__(
        cls,
        source: StrPath,
        out: StrPath,
        *,
        block_size: int = 65536,
        level: int | str | None = None,
        format: str = "v2",
        codec: str = "zlib",
        footer: bool = False,
        force: bool = False,
    ) -> Assembly: ...
    @property
    def size(self) -> int | None: ...
    @property
    def seekable(self) -> bool: ...
    @property
    def name(self) -> str: ...
    def read(self, offset: int, length: int) -> bytes: ...
    def append(self, data: bytes, lengths: bytes, sum: int, input: int) -> None: ...
    def finish(self) -> dict[str, Any]: ...
    def close(self) -> None: ...

@final
class Checker:
    def __new__(cls, image: Source) -> Checker: ...
    @property
    def files(self) -> list[Path]: ...
    @property
    def mark(self) -> str | None: ...
    @property
    def blocks(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    def check(self, first: int, end: int) -> list[dict[str, Any]]: ...
    def take(
        self, first: int, end: int
    ) -> tuple[list[tuple[int, int, int, str, bool]], bytes, list[dict[str, Any]]]: ...

def check_taken(
    blocks: Sequence[tuple[int, int, int, str, bool]], data: bytes, block_size: int
) -> list[dict[str, Any]]: ...

@final
class RemoteFile:
    def __new__(cls, url: str, remote: Remote) -> RemoteFile: ...
    @property
    def size(self) -> int: ...
    def pread(self, length: int, offset: int) -> bytes: ...

def pull(
    url: str,
    remote: Remote,
    to: StrPath | None = None,
    *,
    verity: str | None = None,
    verity_tree: StrPath | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> Path: ...
def redacted(text: str) -> str: ...
def on_warning(function: Callable[[str], object] | None) -> None: ...
def name_commands(wanted: bool) -> None: ...
def sniff(path: Source) -> Literal["cloop", "cowfile", "raw"]: ...
def image_info(path: Source) -> dict[str, Any]: ...
def cow_info(path: StrPath) -> dict[str, Any]: ...
def trace_info(path: Source) -> dict[str, Any] | None: ...
def extract(
    image: Source,
    cows: Sequence[StrPath],
    out: StrPath,
    *,
    threads: int | None = None,
    sparse: bool = True,
    force: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def create(
    source: StrPath,
    out: StrPath,
    *,
    block_size: int = 65536,
    level: int | str | None = None,
    format: str = "v2",
    codec: str = "zlib",
    footer: bool = False,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def commit(
    image: Source,
    cows: Sequence[StrPath],
    out: StrPath,
    *,
    level: int | str | None = None,
    block_size: int = 65536,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def verify(
    image: Source,
    *,
    threads: int | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def digest(
    image: Source,
    *,
    tree: StrPath | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def check_output(out: StrPath, *, image: bool = False, force: bool = False) -> None: ...
def kept(path: StrPath) -> str | None: ...
def write_output(out: StrPath, data: bytes, *, force: bool = False) -> None: ...
def take_place(whole: StrPath, place: StrPath) -> None: ...
def cow_repair(
    path: StrPath,
    *,
    dry_run: bool = False,
    force: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def cow_rebase(
    image: Source,
    lower: Sequence[StrPath],
    cow: StrPath,
    *,
    old: Source | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def cow_merge(
    base: StrPath,
    cow: StrPath,
    *,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def cow_pack(
    source: StrPath,
    target: StrPath,
    *,
    gzip: bool = False,
    force: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def cow_unpack(
    source: StrPath,
    target: StrPath,
    *,
    force: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def cow_snapshot(
    path: StrPath,
    target: StrPath,
    *,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
def device_map(
    image: Source,
    cows: Sequence[StrPath],
    cells: int,
    *,
    progress: Callable[[int, int | None], object] | None = None,
) -> dict[str, Any]: ...
