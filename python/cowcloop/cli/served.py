"""The parts of a served device that both `list` and `list --watch` show, given as in --json."""

from __future__ import annotations

from typing import Any

from cowcloop import states

# Bytes of a cowfile's block.
_UNIT = 1024


def cowfiles(device: dict[str, Any]) -> list[dict[str, Any]]:
    """The cowfiles, the written one first, and those of sessions."""
    return [*reversed(device["cowfiles"]), *device.get("sessions", ())]


def own_states(device: dict[str, Any]) -> list[str]:
    """The state of the device itself, whatever its cowfiles are."""
    found = [] if cowfiles(device) or "sessions" in device else [states.READ_ONLY]
    if device.get("suspended"):
        found.append(states.SUSPENDED)
    return found


def size_of(cow: dict[str, Any], name: str) -> int:
    """A number of a cowfile's blocks in bytes."""
    return int(cow[name]) * _UNIT
