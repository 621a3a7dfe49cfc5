"""The nbdkit command line of one device."""

from __future__ import annotations

import os
from pathlib import Path

import cowcloop
from cowcloop.errors import CowcloopError
from cowcloop.files import MEMORY
from cowcloop.part import Part
from cowcloop.programs import find_program
from cowcloop.server.address import Address
from cowcloop.server.options import ServeOptions, absolute
from cowcloop.source import file_of

# Threads of a connection where there is one processor: of more, each only has to be woken.
_FEW_THREADS = 4

_PLUGIN = "lib/nbdkit-cowcloop-plugin.so"


def plugin_path() -> str:
    """The nbdkit plugin that belongs to this package."""
    override = os.environ.get("COWCLOOP_PLUGIN")
    path = override or str(Path(cowcloop.__file__).resolve().parent / _PLUGIN)
    if not os.path.exists(path):
        raise CowcloopError(f"{path}: the nbdkit plugin is missing: install cowcloop again")
    return os.path.abspath(path)


def nbdkit_command(
    options: ServeOptions,
    address: Address,
    *,
    foreground: bool,
    control: str | None = None,
    ready: int | None = None,
    lifeline: int | None = None,
) -> list[str]:
    """The command; `ready` and `lifeline` are descriptors that nbdkit inherits.

    nbdkit writes its process number to `ready` when it accepts connections, and ends cleanly when
    `lifeline` reaches its end before anything comes through it.
    """
    command = [find_program("nbdkit", "nbdkit"), *address.nbdkit_args()]
    if foreground:
        command.append("-f")
    if ready is not None:
        command += ["-P", f"/dev/fd/{ready}"]
    if options.read_only:
        command.append("-r")
    if options.nbdkit_verbose:
        command.append("-v")
    if len(os.sched_getaffinity(0)) == 1:
        command += ["-t", str(_FEW_THREADS)]
    command += _tls_args(options)
    command += [plugin_path(), *_image_args(options)]
    command += [f"cow={cow if cow == MEMORY else absolute(cow)}" for cow in options.cows]
    for name, value in (
        ("cache", options.cache),
        ("threads", options.threads),
        ("memory-limit", options.memory_limit),
        ("size", options.size),
        ("preload", options.preload),
        ("sessions", None if options.sessions is None else absolute(options.sessions)),
        ("max-sessions", options.max_sessions),
        ("session-quota", options.session_quota),
        ("control", control),
        ("lifeline", lifeline),
    ):
        if value is not None:
            command.append(f"{name}={value}")
    for name, wanted in (
        ("strict", options.strict),
        ("repair", options.repair),
        ("read-only", options.read_only),
    ):
        if wanted:
            command.append(f"{name}=true")
    if options.read_only:
        command.append("create=false")
    # Last, so that both nbdkit's options and the parameters of a filter work here.
    command += options.nbdkit_args
    return command


def _image_args(options: ServeOptions) -> list[str]:
    source = options.source
    arguments = [f"image={absolute(file_of(source))}"]
    if isinstance(source, Part):
        arguments += [f"image-range={offset}+{length}" for offset, length in source.ranges]
        arguments.append(f"image-name={absolute(source.name)}")
    return arguments


def _tls_args(options: ServeOptions) -> list[str]:
    tls = options.tls
    arguments = []
    if tls.mode is not None:
        arguments.append(f"--tls={tls.mode}")
    if tls.certificates is not None:
        arguments.append(f"--tls-certificates={absolute(tls.certificates)}")
    if tls.psk is not None:
        arguments.append(f"--tls-psk={absolute(tls.psk)}")
    if tls.verify_peer:
        arguments.append("--tls-verify-peer")
    return arguments
