"""The nbdkit command line of one device."""

from __future__ import annotations

import os
from collections.abc import Iterator

from cowcloop.errors import CowcloopError
from cowcloop.options import FLAG, Tls, table
from cowcloop.part import is_url
from cowcloop.programs import find_program
from cowcloop.server.address import Address
from cowcloop.server.options import ServeOptions
from cowcloop.server.parameters import LIBRARY, Channels, parameters, word

# Threads per connection, and how many of them may wait for a suspended image.
#: nbdkit's own number, and the plugin's
_THREADS: tuple[int | None, int | None] = (None, None)
#: on a single processor: more of them would only have to be woken
_FEW_THREADS = (4, 3)
#: a kernel has up to 128 requests under way: all may wait, and threads are left for others
_KERNEL_THREADS = (136, 128)
_NO_CHANNELS = Channels()


def plugin_path() -> str:
    """The nbdkit plugin that belongs to this package."""
    path = os.environ.get("COWCLOOP_PLUGIN") or str(LIBRARY / "nbdkit-cowcloop-plugin.so")
    if not os.path.exists(path):
        raise CowcloopError(f"{path}: the nbdkit plugin is missing: install cowcloop again")
    return os.path.abspath(path)


def nbdkit_command(
    options: ServeOptions,
    address: Address,
    channels: Channels = _NO_CHANNELS,
    *,
    foreground: bool,
) -> list[str]:
    """The command; the descriptors of `channels` are inherited."""
    command = [find_program("nbdkit", "nbdkit"), *address.arguments()]
    if foreground:
        command.append("-f")
    if options.read_only:
        command.append("-r")
    if options.nbdkit_verbose:
        command.append("-v")
    threads, may_wait = _THREADS
    # A read that waits for the network takes a thread, as one of a suspended image does.
    if options.device is not None or is_url(options.image):
        threads, may_wait = _KERNEL_THREADS
    elif len(os.sched_getaffinity(0)) == 1:
        threads, may_wait = _FEW_THREADS
    if threads is not None:
        command += ["-t", str(threads)]
    command += _tls_args(options)
    command.append(plugin_path())
    # All requests of a client that only reads may wait.
    command += parameters(options, channels, may_wait if options.may_write else None)
    # Last, so that both nbdkit's options and the parameters of a filter work here.
    command += options.nbdkit_args
    return command


def _tls_args(options: ServeOptions) -> Iterator[str]:
    for name, option in table(Tls).items():
        value = getattr(options.tls, name)
        if value is not None and value is not False:
            yield option.flag if option.kind is FLAG else f"{option.flag}={word(option, value)}"
