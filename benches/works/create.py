"""Compressing the plain image: how long it takes, and how large the result is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benches.material import BLOCK
from benches.model import OURS, SECONDS, SIZE, Contender, Work
from benches.programs import COWCLOOP, seconds
from benches.works import Setting

# The peer that tries every compressor on each block takes minutes for the whole image.
_RUNS = 2
_MOST = 128 << 20


def works(setting: Setting) -> Iterator[Work]:
    """At the default level, and as small as possible."""
    raw = setting.scratch / "source.raw"
    with setting.material.raw.open("rb") as whole:
        raw.write_bytes(whole.read(_MOST))
    out = setting.scratch / "created.cloop"
    sizes: dict[str, int] = {}

    def create(name: str, *command: str | Path) -> Callable[[], float]:
        def measure() -> float:
            out.unlink(missing_ok=True)
            taken = seconds(command)
            sizes[name] = out.stat().st_size
            out.unlink()
            return taken

        return measure

    def size(name: str) -> Callable[[], float]:
        return lambda: sizes[name] / 1e6

    ours: list[str | Path] = [COWCLOOP, "create", "-q", raw, out]
    peer = ["create_compressed_fs", "-q", "-B", str(BLOCK)]
    for name, title, level, peer_level in (
        ("create", f"Create from {_MOST >> 20} MiB, default level", [], "9"),
        ("create-best", f"Create from {_MOST >> 20} MiB, best", ["--level", "best"], "-2"),
    ):
        their_name = f"create_compressed_fs -L {peer_level}"
        yield Work(
            name,
            title,
            SECONDS,
            [
                Contender(OURS, create(f"{name} ours", *ours, *level)),
                Contender(
                    their_name,
                    create(f"{name} peer", *peer, "-L", peer_level, raw, out),
                ),
            ],
            runs=_RUNS,
        )
        yield Work(
            f"{name}-size",
            f"{title}: size of the result",
            SIZE,
            [
                Contender(OURS, size(f"{name} ours")),
                Contender(their_name, size(f"{name} peer")),
            ],
            runs=1,
        )
