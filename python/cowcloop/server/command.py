"""The nbdkit command line of one device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cowcloop
from cowcloop.errors import CowcloopError
from cowcloop.files import MEMORY
from cowcloop.options import DIRECTORY, FLAG, PATH, Option, ServerKeywords, Tls, table
from cowcloop.part import Part
from cowcloop.programs import find_program
from cowcloop.server.address import Address
from cowcloop.server.options import ServeOptions, absolute
from cowcloop.source import file_of

# Threads per connection on a single processor: more of them would only have to be woken.
_FEW_THREADS = 4
# A kernel has up to 128 requests under way on its connection: while the image is suspended all of
# those that read it may wait, and threads are left for the others.
_KERNEL_WAITING = 128
_KERNEL_THREADS = _KERNEL_WAITING + 8

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
    events: int | None = None,
    log: bool = True,
    lifeline: int | None = None,
) -> list[str]:
    """The command; `events` and `lifeline` are descriptors that nbdkit inherits.

    The plugin tells what happens by `events`, and in nbdkit's `log` if that is wanted. The server
    ends cleanly when `lifeline` reaches its end before anything comes through it.
    """
    command = [find_program("nbdkit", "nbdkit"), *address.nbdkit_args()]
    if foreground:
        command.append("-f")
    if options.read_only:
        command.append("-r")
    if options.nbdkit_verbose:
        command.append("-v")
    kernel = options.device is not None
    if kernel:
        command += ["-t", str(_KERNEL_THREADS)]
    elif len(os.sched_getaffinity(0)) == 1:
        command += ["-t", str(_FEW_THREADS)]
    command += _tls_args(options)
    command.append(plugin_path())
    if events is not None:
        # First, so that errors in other parameters are reported there.
        command += [f"events={events}"] if log else [f"events={events}", "log=false"]
    command += _image_args(options)
    command += [f"cow={cow if cow == MEMORY else absolute(cow)}" for cow in options.cows]
    command += _parameters(options)
    for name, value in (
        ("waiting", _KERNEL_WAITING if kernel else None),
        ("control", control),
        ("lifeline", lifeline),
    ):
        if value is not None:
            command.append(f"{name}={value}")
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


def _parameters(options: ServeOptions) -> Iterator[str]:
    """The plugin's parameters for the options that were given."""
    for name, option in table(ServerKeywords).items():
        value = options.given.get(name)
        if value is not None and option.plugin:
            yield f"{option.flag.removeprefix('--')}={_word(option, value)}"


def _tls_args(options: ServeOptions) -> Iterator[str]:
    for name, option in table(Tls).items():
        value = getattr(options.tls, name)
        if value is not None and value is not False:
            yield option.flag if option.kind is FLAG else f"{option.flag}={_word(option, value)}"


def _word(option: Option, value: Any) -> str:
    if option.kind is FLAG:
        return "true"
    return absolute(value) if option.kind in (PATH, DIRECTORY) else str(value)
