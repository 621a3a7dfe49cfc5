"""The whole device, from the first byte to the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from benches import mounts, servers
from benches.model import OURS, RATE, Contender, Work
from benches.programs import seconds
from benches.works import Setting


def works(setting: Setting) -> Iterator[Work]:
    """Read through the network block device protocol, or from the mounted file."""
    material = setting.material

    def copy(server: AbstractContextManager[str]) -> float:
        with server as uri:
            return material.size / 1e6 / seconds(["nbdcopy", uri, "null:"])

    def squashfs() -> float:
        with mounts.held("squashfs", material.squashfs, material.raw.name) as file:
            return material.size / 1e6 / seconds(["dd", f"if={file}", "of=/dev/null", "bs=1M"])

    yield Work(
        "sequential",
        "Sequential read of the whole device, nbdcopy to null:",
        RATE,
        [
            Contender(OURS, lambda: copy(servers.ours(material.cloop))),
            Contender("qemu-nbd", lambda: copy(servers.qemu_nbd(material.cloop, "cloop", "-r"))),
            Contender("squashfs, this kernel", squashfs),
        ],
    )
