"""The kernel's own NBD devices, /dev/nbdN, through the program nbd-client."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from pathlib import Path

from cowcloop.programs import find_program
from cowcloop.server.errors import ServerError

# The kernel reads 128 KiB ahead unless told otherwise: too little to keep a server busy that
# has to be woken for each request.
_READ_AHEAD_KIB = 1024

_ERROR = "Error: "

BLOCK_DEVICES = Path("/sys/block")


def check(device: str) -> None:
    """Refuse a device that cannot be used, before anything is started."""
    try:
        status = os.stat(device)
    except FileNotFoundError:
        raise ServerError(
            f"{device} does not exist: load the kernel's module with: modprobe nbd"
        ) from None
    except OSError as error:
        raise ServerError(f"{device}: {error.strerror}") from None
    if not stat.S_ISBLK(status.st_mode):
        raise ServerError(f"{device} is not a block device: name one such as /dev/nbd0")
    find_program("nbd-client", "nbd-client")


def connected(device: str) -> bool:
    """Whether a device has a client: the kernel shows its process number."""
    return (BLOCK_DEVICES / _name(device) / "pid").exists()


def connect(device: str, socket: str) -> None:
    """Connect a device to a server. 512-byte blocks, so that every filesystem can be mounted."""
    _run([find_program("nbd-client", "nbd-client"), "-unix", socket, device, "-b", "512"], device)
    # It works without, where there is no sysfs.
    with contextlib.suppress(OSError):
        place = BLOCK_DEVICES / _name(device) / "queue/read_ahead_kb"
        place.write_text(str(_READ_AHEAD_KIB), encoding="ascii")


def disconnect(device: str) -> None:
    """Take a device, for which the kernel holds nothing any more, from the server."""
    _run([find_program("nbd-client", "nbd-client"), "-d", device], device)


def _name(device: str) -> str:
    return os.path.basename(os.path.realpath(device))


def _run(command: list[str], device: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        # Warnings come before the error, and "Exiting." behind it.
        errors = [line for line in lines if line.startswith(_ERROR)] or lines[-1:]
        said = errors[0].removeprefix(_ERROR) if errors else f"exit status {done.returncode}"
        raise ServerError(f"{device}: nbd-client: {said}")
