"""What a user does in a mounted image: archives it, looks for something, reads the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benches import forms, mounts, servers
from benches.material import Material, write_io_log
from benches.model import MILLISECONDS, OURS, RATE, READS, SECONDS, Contender, Unit, Work
from benches.mounts import Place
from benches.programs import fio, seconds
from benches.works import Setting

Mounted = Callable[[], AbstractContextManager[Place]]

PLAIN = "the plain image, loop"
NBDFUSE = "nbdkit, nbdfuse, loop"


def works(setting: Setting) -> Iterator[Work]:
    """Of the mounted file system, and of the block device below it."""
    material = setting.material
    ways = _ways(setting)

    def work(name: str, title: str, unit: Unit, figure: Callable[[Place], float]) -> Work:
        def measured(mounted: Mounted) -> float:
            with mounted() as place:
                return figure(place)

        return Work(f"mount-{name}", f"In a mount, {title}", unit, _each(ways, measured))

    yield work("tar-cold", "tar of the tree to a pipe, cold", SECONDS, _tar)
    yield work("tar-warm", "tar of the tree to a pipe, the second time", SECONDS, _second_tar)
    yield work(
        "find", "find -ls, cold", SECONDS, lambda place: seconds(["find", place.tree, "-ls"])
    )
    yield work("random", "random 4 KiB of the device, cold, depth 1", READS, _random(setting))
    dd = work("dd", "dd bs=1M of the device, cold", RATE, lambda place: _dd(place, material))
    nbdcopy = Contender("cowcloop, nbdcopy to null:", lambda: _nbdcopy(material))
    yield Work(dd.name, dd.title, dd.unit, [*dd.contenders, nbdcopy])
    yield _first_file(material, ways)


def _ways(setting: Setting) -> dict[str, Mounted]:
    material, name = setting.material, setting.material.raw.name
    cow = setting.scratch / "mount.cow"

    def erofs(compressor: str) -> Mounted:
        return lambda: mounts.inside("erofs", forms.erofs(material, compressor), name)

    return {
        OURS: lambda: mounts.made_by(mounts.ours(material.cloop, cow), cow),
        "squashfs holding it": lambda: mounts.inside("squashfs", material.squashfs, name),
        "EROFS (lz4hc) holding it": erofs("lz4hc"),
        "EROFS (deflate) holding it": erofs("deflate"),
        PLAIN: lambda: mounts.plain(material.raw),
        NBDFUSE: lambda: mounts.made_by(mounts.by_nbdfuse(material.cloop, cow), cow),
    }


def _each(ways: dict[str, Mounted], measure: Callable[[Mounted], float]) -> list[Contender]:
    def contender(name: str, mounted: Mounted) -> Contender:
        return Contender(name, lambda: measure(mounted))

    return [contender(*way) for way in ways.items()]


def _tar(place: Place) -> float:
    # tar reads no file when it sees that it writes to /dev/null.
    return seconds(["sh", "-c", 'tar -cf - -C "$1" . | cat >/dev/null', "sh", place.tree])


def _second_tar(place: Place) -> float:
    _tar(place)
    return _tar(place)


def _random(setting: Setting) -> Callable[[Place], float]:
    log = setting.scratch / "mount.iolog"

    def figure(place: Place) -> float:
        write_io_log(log, place.device, setting.material)
        options = ["--ioengine=psync", "--invalidate=1", "--fadvise_hint=random", "--readonly"]
        return fio(*options, f"--read_iolog={log}")

    return figure


def _dd(place: Place, material: Material) -> float:
    return material.size / 1e6 / seconds(["dd", f"if={place.device}", "of=/dev/null", "bs=1M"])


def _nbdcopy(material: Material) -> float:
    with servers.ours(material.cloop) as uri:
        return material.size / 1e6 / seconds(["nbdcopy", uri, "null:"])


def _first_file(material: Material, ways: dict[str, Mounted]) -> Work:
    names: list[Path] = []

    def measure(mounted: Mounted) -> float:
        if not names:
            names.append(forms.first_file(material))
        # This makes what is to be mounted, where it is not there yet.
        prepared = mounted()
        begin = time.perf_counter()
        with prepared as place:
            (place.tree / names[0]).read_bytes()
            return 1000 * (time.perf_counter() - begin)

    # The former way's server is started without a command here.
    commands = {name: way for name, way in ways.items() if name != NBDFUSE}
    title = "From the command that mounts to the first file read"
    return Work("mount-first-file", title, MILLISECONDS, _each(commands, measure))
