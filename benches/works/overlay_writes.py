"""Random 4 KiB writes into an overlay, with and without flushes between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benches import servers
from benches.material import Material
from benches.model import OURS, WRITES, Contender, Work
from benches.programs import fio, run
from benches.works import Setting

_WRITES = 20_000
_FLUSHED_WRITES = 4_000
_EVERY = 32


def works(setting: Setting) -> Iterator[Work]:
    """Against a plain file, with and without nbdkit's cow filter, and against qcow2 over the
    same image; on the same file system."""
    material = setting.material

    def ours(options: list[str], folder: Path) -> float:
        return _write(servers.ours(material.cloop, folder / "cow"), options)

    def plain(options: list[str], folder: Path, *filters: str) -> float:
        file = folder / "raw"
        with file.open("wb") as image:
            image.truncate(material.size)
        return _write(servers.nbdkit(*filters, "file", str(file), scratch=folder), options)

    def cow_filter(options: list[str], folder: Path) -> float:
        return plain(options, folder, "--filter=cow")

    def qcow2(options: list[str], folder: Path) -> float:
        overlay = _qcow2(material, folder / "qcow2")
        return _write(servers.qemu_nbd(overlay, "qcow2"), options)

    for name, title, options in (
        ("write", "no flush", [f"--number_ios={_WRITES}"]),
        (
            "write-flush",
            f"a flush every {_EVERY}",
            [f"--number_ios={_FLUSHED_WRITES}", f"--fsync={_EVERY}"],
        ),
    ):

        def contender(
            name: str,
            run: Callable[[list[str], Path], float],
            options: list[str] = options,
        ) -> Contender:
            def measure() -> float:
                with material.written() as folder:
                    return run(options, folder)

            return Contender(name, measure)

        yield Work(
            name,
            f"Random 4 KiB writes into the overlay, depth 16, {title}",
            WRITES,
            [
                contender(OURS, ours),
                contender("nbdkit file plugin", plain),
                contender("nbdkit cow filter over a plain file", cow_filter),
                contender("qcow2 over cloop, qemu-nbd", qcow2),
            ],
        )


def _qcow2(material: Material, overlay: Path) -> Path:
    backing: list[str | Path] = ["-b", material.cloop, "-F", "cloop"]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, overlay])
    return overlay


def _write(server: AbstractContextManager[str], options: list[str]) -> float:
    with server as uri:
        return fio(
            "--ioengine=nbd",
            f"--uri={uri}",
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=16",
            *options,
            direction="write",
        )
