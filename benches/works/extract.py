"""The plain image out of the compressed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benches.inflate_limit import inflate_limit
from benches.model import OURS, RATE, Contender, Work
from benches.programs import COWCLOOP, seconds
from benches.works import Setting


def works(setting: Setting) -> Iterator[Work]:
    """To a file in memory, beside the peers and the limit that inflating sets."""
    material = setting.material
    out = setting.scratch / "extracted.raw"

    def rate(*command: str | Path) -> Callable[[], float]:
        def measure() -> float:
            try:
                return material.size / 1e6 / seconds(command)
            finally:
                out.unlink(missing_ok=True)

        return measure

    extract: list[str | Path] = [COWCLOOP, "extract", "-q", material.cloop]
    convert: list[str | Path] = ["qemu-img", "convert", "-f", "cloop", "-O", "raw", material.cloop]
    yield Work(
        "extract",
        "Extract to a file in memory",
        RATE,
        [
            Contender(OURS, rate(*extract, out)),
            Contender(
                "extract_compressed_fs to /dev/null",
                rate("extract_compressed_fs", material.cloop, "/dev/null"),
            ),
            Contender("qemu-img convert", rate(*convert, out)),
            Contender(
                "inflate only, in memory, all cores",
                lambda: inflate_limit(material.cloop),
            ),
        ],
    )
