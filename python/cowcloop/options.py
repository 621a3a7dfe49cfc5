"""The options of a device, each in one place.

A key of the classes below is an option. Its type is what a Python caller may give; its `Option`
is how the command line takes it, what help says of it, and whether it is a parameter of nbdkit's
plugin. The class says where it may be given. Everything else is made from that: the keywords of
:func:`cowcloop.open` and :func:`cowcloop.serve`, the options of serve, attach and mount, their
help and the reference, and the command line of nbdkit.
"""

# No "from __future__ import annotations": these annotations are read when the program runs.
import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cache
from typing import (
    Annotated,
    Any,
    Callable,
    Optional,
    TypedDict,
    TypeVar,
    Union,
    get_type_hints,
)

from cowcloop.sizes import size_of

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Bytes, or text such as ``"64M"``.
Size = Union[int, str]
Path = Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]

#: The device that is not there before it is served.
UBLK = "ublk"


class Kind(Enum):
    """How an option is written on the command line."""

    FLAG = auto()
    SIZE = auto()
    COUNT = auto()
    PATH = auto()
    DIRECTORY = auto()
    TCP = auto()
    CHOICE = auto()
    DIGEST = auto()
    ENDPOINT = auto()


FLAG, SIZE, COUNT, PATH, DIRECTORY, TCP, CHOICE, DIGEST, ENDPOINT = Kind

# Where help lists an option, in this order.
LISTENING = "Where it listens"
IMAGE = "The image"
CHANGES = "Changes"
SESSIONS = "Sessions"
SPEED = "Speed"
REMOTE = "Images at URLs"
TLS = "TLS, as nbdkit has it"
GROUPS = (LISTENING, IMAGE, CHANGES, SESSIONS, SPEED, REMOTE, TLS)


@dataclass(frozen=True, repr=False)
class Option:
    """One option of the command line."""

    group: str
    kind: Kind
    help: str
    #: the word for its value, unless the kind has one
    metavar: Optional[str] = None
    #: the bounds of a COUNT
    least: int = 1
    most: Optional[int] = None
    #: the words of a CHOICE
    choices: tuple[str, ...] = ()
    #: as it is typed, where that is not the name with dashes
    flag: str = ""
    short: Optional[str] = None
    #: whether only --help shows it, and not -h
    rare: bool = False
    #: whether the plugin has a parameter of this name
    plugin: bool = True

    def __repr__(self) -> str:
        # What help() shows of a class with options in it.
        return f"Option({self.help!r})"


class RemoteKeywords(TypedDict, total=False):
    """Options of an image at a URL."""

    cache_dir: Annotated[
        Optional[Path],
        Option(
            REMOTE,
            DIRECTORY,
            "Keep here what was fetched (default: ~/.cache/cowcloop/images).",
            rare=True,
        ),
    ]
    cache_limit: Annotated[
        Optional[Size],
        Option(
            REMOTE,
            SIZE,
            "Space that all images there may take (default: a tenth of the disk stays free).",
            rare=True,
        ),
    ]
    offline: Annotated[
        bool, Option(REMOTE, FLAG, "Ask no server: read what is kept alone.", rare=True)
    ]
    timeout: Annotated[
        Optional[int],
        Option(
            REMOTE,
            COUNT,
            "How long a read waits for a server (default: 60).",
            "SECONDS",
            most=86_400,
            rare=True,
        ),
    ]
    ca_file: Annotated[
        Optional[Path],
        Option(REMOTE, PATH, "Trust the authorities in this file (PEM), too.", "FILE", rare=True),
    ]


class ImageKeywords(RemoteKeywords, total=False):
    """Options of an image, wherever one is read."""

    verity: Annotated[
        Optional[str],
        Option(IMAGE, DIGEST, "Read nothing but the image of this digest.", rare=True),
    ]
    verity_tree: Annotated[
        Optional[Path],
        Option(
            IMAGE,
            PATH,
            "Its digest tree (default: IMAGE.verity, if there is one).",
            "FILE",
            rare=True,
        ),
    ]


class DeviceKeywords(ImageKeywords, total=False):
    """Options of a device, opened in this process or served."""

    read_only: Annotated[bool, Option(CHANGES, FLAG, "Refuse writes, even with a COW.")]
    repair: Annotated[
        bool, Option(CHANGES, FLAG, "Take a COW that the old kernel driver left dirty.")
    ]
    memory_limit: Annotated[
        Optional[Size], Option(CHANGES, SIZE, "Limit of a :memory: overlay.", rare=True)
    ]
    size: Annotated[
        Optional[Size],
        Option(CHANGES, SIZE, "Size of the device with a new COW, if larger.", rare=True),
    ]
    cache: Annotated[
        Optional[Size],
        Option(SPEED, SIZE, "Memory for decompressed blocks (default: 1/16 of all, 64M to 512M)."),
    ]
    threads: Annotated[Optional[int], Option(SPEED, COUNT, "Decompressing threads.", most=1024)]
    strict: Annotated[
        bool, Option(SPEED, FLAG, "Check each block whole before any of it is read.", rare=True)
    ]


class OpenKeywords(DeviceKeywords, total=False):
    """The keywords of :func:`cowcloop.open`."""

    create: bool


class ListenKeywords(TypedDict, total=False):
    """Options of a server's address."""

    unix: Annotated[
        Optional[Path],
        Option(LISTENING, PATH, "Listen on this Unix socket.", "SOCKET", short="-U", plugin=False),
    ]
    tcp: Annotated[
        Union[str, int, tuple[str, int], None],
        Option(
            LISTENING,
            TCP,
            "Listen on a TCP port, of 127.0.0.1 unless HOST is given (0.0.0.0, [::] or *: of all "
            "interfaces); port 0 takes a free one.",
            plugin=False,
        ),
    ]


class ServedKeywords(DeviceKeywords, total=False):
    """Options of a device that is served or mounted."""

    device: Annotated[
        Optional[str],
        Option(
            LISTENING,
            PATH,
            "A block device: ublk makes one, or one of the kernel's NBD is connected. When the "
            "server is killed, programs that use the first one wait for another server (with "
            "attach), and those that use the second one get I/O errors.",
            "ublk|/dev/nbdN",
            plugin=False,
        ),
    ]
    preload: Annotated[
        Optional[int],
        Option(SPEED, COUNT, "Read N blocks into the cache first.", least=0, rare=True),
    ]
    record_trace: Annotated[
        Optional[Path],
        Option(
            SPEED,
            PATH,
            "Write in FILE, at the end, which blocks were read first.",
            "FILE",
            rare=True,
        ),
    ]
    trace: Annotated[
        Optional[Path],
        Option(
            SPEED,
            PATH,
            "Prefetch the blocks that this trace names (default: IMAGE.trace, if there is one).",
            "FILE",
            rare=True,
        ),
    ]
    prefetch: Annotated[
        Optional[str],
        Option(
            SPEED,
            CHOICE,
            "Prefetch nothing, the trace's blocks (default), or those and then all of IMAGE.",
            choices=("none", "trace", "all"),
            rare=True,
        ),
    ]
    rate: Annotated[
        Optional[Size],
        Option(SPEED, SIZE, "Limit prefetching to SIZE bytes a second.", rare=True),
    ]


class ServerKeywords(ListenKeywords, ServedKeywords, total=False):
    """Options of a device that is served."""

    sessions: Annotated[
        Optional[Path],
        Option(SESSIONS, DIRECTORY, "Each export NAME is a session with the cowfile DIR/NAME.cow."),
    ]
    max_sessions: Annotated[
        Optional[int], Option(SESSIONS, COUNT, "Sessions there may be.", rare=True)
    ]
    session_quota: Annotated[
        Optional[Size], Option(SESSIONS, SIZE, "Space a session's cowfile may take.", rare=True)
    ]
    reset_on_boot: Annotated[
        bool,
        Option(
            SESSIONS,
            FLAG,
            "A session begins anew when its machine has been started again; NAME@BOOT names the"
            " machine's boot.",
            rare=True,
        ),
    ]
    boot_gap: Annotated[
        Optional[int],
        Option(
            SESSIONS,
            COUNT,
            "Seconds without a client that mean a new boot, where it is not named (default: 60).",
            least=0,
            rare=True,
        ),
    ]
    metrics: Annotated[
        Union[Path, int, None],
        Option(
            LISTENING,
            ENDPOINT,
            "Answer with OpenMetrics text on a TCP port, of 127.0.0.1 unless HOST is given, or on "
            "a Unix socket.",
            "[HOST:]PORT|SOCKET",
            rare=True,
        ),
    ]


@dataclass(frozen=True)
class Tls:
    """nbdkit's TLS options: `mode` is off, on or require; the rest are paths.

    nbdkit takes keys without a mode, and serves in the clear: here they imply `require`. ValueError
    where the mode does not keep what the rest promises.
    """

    mode: Annotated[
        Optional[str],
        Option(
            TLS,
            CHOICE,
            "nbdkit's --tls; require with any of the three below.",
            choices=("off", "on", "require"),
            flag="--tls",
            rare=True,
        ),
    ] = None
    certificates: Annotated[
        Optional[str],
        Option(
            TLS, DIRECTORY, "nbdkit's --tls-certificates.", flag="--tls-certificates", rare=True
        ),
    ] = None
    psk: Annotated[
        Optional[str],
        Option(TLS, PATH, "nbdkit's --tls-psk.", "FILE", flag="--tls-psk", rare=True),
    ] = None
    verify_peer: Annotated[
        bool, Option(TLS, FLAG, "nbdkit's --tls-verify-peer.", flag="--tls-verify-peer", rare=True)
    ] = False

    def __post_init__(self) -> None:
        options = table(Tls)
        secured = [name for name in options if name != "mode" and getattr(self, name)]
        if not secured:
            return
        if self.mode == "off":
            option = options[secured[0]].flag
            raise ValueError(
                f"--tls off serves in the clear, whatever {option} says: leave out one"
            )
        if self.mode == "on" and self.verify_peer:
            raise ValueError("--tls on lets clients in unverified: --tls-verify-peer needs require")
        if self.mode is None:
            object.__setattr__(self, "mode", "require")


class ServeKeywords(ServerKeywords, total=False):
    """The keywords of :func:`cowcloop.serve`."""

    tls: Optional[Tls]
    nbdkit_args: Iterable[str]


@cache
def table(of: type) -> Mapping[str, Option]:
    """The options of a class by name, in the order of their groups."""
    found = {}
    for name, (_, option) in _annotations(of).items():
        if option is not None:
            found[name] = replace(option, flag=option.flag or f"--{name.replace('_', '-')}")
    return dict(sorted(found.items(), key=lambda each: GROUPS.index(each[1].group)))


def normal(of: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options of a class, those with their default values left out.

    Sizes are in bytes, paths are text. Raises ValueError for text that is not a size.
    """
    convert: dict[Kind, Callable[[Any], Any]] = {
        SIZE: size_of,
        PATH: os.fsdecode,
        DIRECTORY: os.fsdecode,
        ENDPOINT: lambda value: str(value) if isinstance(value, int) else os.fsdecode(value),
    }
    known = table(of)
    return {
        name: convert.get(known[name].kind, lambda same: same)(value)
        for name, value in given.items()
        if name in known and value is not None and value is not False
    }


def keywords_of(of: type, **defaults: Any) -> Callable[[_Function], _Function]:
    """Show a class's keywords in the signature of a function that takes them as ``**given``."""

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)
        shown = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        for name, (hint, option) in _annotations(of).items():
            default = defaults.get(name, False if option and option.kind is FLAG else None)
            keyword = inspect.Parameter.KEYWORD_ONLY
            shown.append(inspect.Parameter(name, keyword, default=default, annotation=hint))
        vars(function)["__signature__"] = signature.replace(parameters=shown)
        return function

    return decorate


def check_keywords(function: str, of: type, given: Iterable[str]) -> None:
    """TypeError for a keyword that a class does not have."""
    for name in given:
        if name not in _annotations(of):
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


@cache
def _annotations(of: type) -> Mapping[str, tuple[Any, Optional[Option]]]:
    """The type of each name in a class, and its option if it is one."""
    found = {}
    for name, hint in get_type_hints(of, include_extras=True).items():
        options = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Option)]
        found[name] = (hint.__origin__, options[0]) if options else (hint, None)
    return found
