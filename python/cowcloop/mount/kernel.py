"""Mounting by the kernel's own file systems, and what to do where one refuses."""

from __future__ import annotations

import contextlib

from cowcloop.mount import journals, loop
from cowcloop.mount.errors import MountError
from cowcloop.mount.programs import run
from cowcloop.mount.ways.base import Mounting
from cowcloop.programs import find_program
from cowcloop.server.messages import Message


def mount(mounting: Mounting, *, by_loop: bool) -> None:
    """Mount a device, by a loop device if its path is that of a file or only a part is meant."""
    record, volume = mounting.record, mounting.volume
    with contextlib.ExitStack() as stack:
        device = mounting.source
        if by_loop:
            device = stack.enter_context(loop.attached(device, volume, read_only=record.read_only))
        _mount(mounting, device)


def _mount(mounting: Mounting, device: str) -> None:
    record, volume = mounting.record, mounting.volume
    program = find_program("mount", "mount")

    def attempt(*more: str) -> str | None:
        """Mount; None, or why not."""
        joined = ",".join([*mounting.words, *more])
        done = run(program, "-t", volume.kind, "-o", joined, "--", device, mounting.place)
        return done.reason(mounting.place) if done.code else None

    reason = attempt()
    if reason is None:
        return
    without = journals.WITHOUT_REPLAY.get(volume.kind)
    if record.read_only and without and attempt(without) is None:
        message = journals.mounted_without(volume, without)
        mounting.report(Message("warning", f"{mounting.image}: {message}"))
        return
    raise MountError(f"{mounting.image}: {_explained(reason, mounting)}")


def _explained(reason: str, mounting: Mounting) -> str:
    kind = mounting.volume.kind
    if "unknown filesystem type" in reason:
        return f"this kernel cannot mount {kind}: load its module with: modprobe {kind}"
    if mounting.given:
        # mount(8) does not always say which word it was.
        given = ",".join(mounting.given)
        return f"its {kind} cannot be mounted with -o {given} (try without): {reason}"
    return reason + journals.remedy(kind, mounting.record.read_only)
