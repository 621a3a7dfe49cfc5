"""An image on a web server: over a slow line, over a quick and long one, and from the cache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import cowcloop

from benches import far, material, mounts, servers, web
from benches.far import Far
from benches.line import Line
from benches.material import Material
from benches.model import OURS, RATE, SECONDS, Contender, Work
from benches.mounts import Place
from benches.programs import COWCLOOP, run, seconds
from benches.works import Setting

#: 25 Mbit/s and 20 ms; 100 MB/s and 100 ms.
SLOW = Line(25e6 / 8, 0.02)
LONG = Line(100e6, 0.1)
#: Of the image that is downloaded over the slow line.
SIZE = 256 << 20
#: Of curl's requests, which are as large as the largest of cowcloop's.
_RANGE = 1 << 20
_AT_ONCE = 24

LOCAL = "the same image in a file"
DOWNLOADED = "downloaded first, then mounted"


def works(setting: Setting) -> Iterator[Work]:
    """Each begins with an empty cache, but for those that say otherwise."""
    yield _slow(setting)
    yield _warm_set(setting)
    yield _warm(setting)
    yield _loopback(setting)
    yield _long(setting)


def smaller(setting: Setting) -> Material:
    """The image that goes over the slow line, and that sessions read."""
    return material.prepare(min(SIZE, setting.material.size))


def _slow(setting: Setting) -> Work:
    def contender(
        name: str, mounted: Callable[[Far, str, Path], AbstractContextManager[Path]]
    ) -> Contender:
        def measure() -> float:
            prepared = far.prepare(smaller(setting))
            file = prepared.squashfs if mounted is _httpdirfs else prepared.image
            with web.serving(prepared.folder, SLOW) as site, _folder(setting) as folder:
                begin = time.perf_counter()
                with mounted(prepared, site.url(file), folder) as tree:
                    prepared.read(tree)
                    return time.perf_counter() - begin

        return Contender(name, measure)

    return Work(
        "remote-slow",
        "Mount an image at 25 Mbit/s, 20 ms, and read 6 % of it, nothing cached",
        SECONDS,
        [
            contender(f"{OURS}, with its trace", _traced),
            contender(f"{OURS}, without a trace", _untraced),
            contender(DOWNLOADED, _downloaded),
            contender("nbdkit's curl plugin, nbdfuse, cowcloop", _curl_plugin),
            contender("httpdirfs, squashfuse", _httpdirfs),
        ],
        # The line sets the pace, and downloading takes half a minute.
        runs=1,
    )


@contextmanager
def _mounted(image: str | Path, *options: str | Path) -> Iterator[Path]:
    with mounts.ours(image, options=options) as place:
        yield place.tree


def _traced(_: Far, url: str, folder: Path) -> AbstractContextManager[Path]:
    return _mounted(url, "--cache-dir", folder)


def _untraced(_: Far, url: str, folder: Path) -> AbstractContextManager[Path]:
    return _mounted(url, "--cache-dir", folder, "--prefetch", "none")


@contextmanager
def _downloaded(_: Far, url: str, folder: Path) -> Iterator[Path]:
    file = folder / "image.cloop"
    run(["curl", "--silent", "--fail", "--output", file, url])
    with _mounted(file) as tree:
        yield tree


@contextmanager
def _curl_plugin(_: Far, url: str, folder: Path) -> Iterator[Path]:
    with (
        servers.nbdkit("--readonly", "curl", f"url={url}") as uri,
        mounts.nbdfuse(uri) as file,
        _mounted(file) as tree,
    ):
        yield tree


@contextmanager
def _httpdirfs(prepared: Far, url: str, folder: Path) -> Iterator[Path]:
    # It misses Accept-Ranges in nginx's answers with a range, which need none. The other way
    # round, it forgets the first of these options.
    options = ["--no-range-check", "--single-file-mode"]
    with ExitStack() as stack:
        shown = stack.enter_context(
            mounts.by_fuse(lambda point: ["httpdirfs", "-f", *options, url, point])
        )
        file = shown / prepared.squashfs.name
        yield stack.enter_context(mounts.by_fuse(lambda point: ["squashfuse", "-f", file, point]))


@contextmanager
def pulled(setting: Setting) -> Iterator[tuple[Far, str, Path]]:
    """What is on a server, and its cache, in which all of it is."""
    prepared = far.prepare(smaller(setting))
    with web.serving(prepared.folder) as site, _folder(setting) as folder:
        url = site.url(prepared.image)
        run([COWCLOOP, "pull", "-q", url, "--cache-dir", folder])
        yield prepared, url, folder


def _warm_set(setting: Setting) -> Work:
    def read(prepared: Far, mounted: AbstractContextManager[Place]) -> float:
        with mounted as place:
            begin = time.perf_counter()
            prepared.read(place.tree)
            return time.perf_counter() - begin

    def cached() -> float:
        with pulled(setting) as (prepared, url, folder):
            options: list[str | Path] = ["--prefetch", "none", "--cache-dir", folder]
            return read(prepared, mounts.ours(url, options=options))

    def local() -> float:
        prepared = far.prepare(smaller(setting))
        options = ["--prefetch", "none"]
        return read(prepared, mounts.ours(prepared.image, options=options))

    return Work(
        "remote-warm-set",
        "Read 6 % of a mounted image, all of it in the cache, which is in the page cache",
        SECONDS,
        [Contender(OURS, cached), Contender(LOCAL, local)],
    )


def _warm(setting: Setting) -> Work:
    def cached() -> float:
        with pulled(setting) as (_, url, folder):
            return copied(smaller(setting), url, cache_dir=folder)

    def local() -> float:
        measured = smaller(setting)
        return copied(measured, measured.cloop)

    return Work(
        "remote-warm",
        "Read a device in order, all of its image in the cache, which is in the page cache",
        RATE,
        [Contender(OURS, cached), Contender(LOCAL, local)],
    )


def _loopback(setting: Setting) -> Work:
    measured = setting.material

    def fetched() -> float:
        with web.serving(measured.folder) as site, _folder(setting) as folder:
            return copied(measured, site.url(measured.cloop), cache_dir=folder)

    return Work(
        "remote-loopback",
        "Read a device in order from nginx on this machine, nothing cached",
        RATE,
        [
            Contender(OURS, fetched),
            Contender(LOCAL, lambda: copied(measured, measured.cloop)),
        ],
    )


def _long(setting: Setting) -> Work:
    measured = setting.material
    compressed = measured.cloop.stat().st_size

    def fetched() -> float:
        with web.serving(measured.folder, LONG) as site, _folder(setting) as folder:
            rate = copied(measured, site.url(measured.cloop), cache_dir=folder)
            return rate * compressed / measured.size

    def curl(at_once: int) -> Callable[[], float]:
        def measure() -> float:
            with web.serving(measured.folder, LONG) as site, _folder(setting) as folder:
                url = site.url(measured.cloop)
                asked = folder / "asked"
                step = _RANGE if at_once > 1 else compressed
                asked.write_text(
                    "next\n".join(
                        f'url = "{url}"\nrange = {first}-{first + step - 1}\noutput = /dev/null\n'
                        for first in range(0, compressed, step)
                    )
                )
                parallel = ["--parallel", "--parallel-immediate", "--parallel-max", str(at_once)]
                command: list[str | Path] = ["curl", "--silent", *parallel, "--config", asked]
                return compressed / 1e6 / seconds(command)

        return measure

    return Work(
        "remote-long",
        "Read a device in order at 100 MB/s, 100 ms, nothing cached: compressed bytes",
        RATE,
        [
            Contender(OURS, fetched),
            Contender("curl, one request", curl(1)),
            Contender(f"curl, 1 MiB each, {_AT_ONCE} at once", curl(_AT_ONCE)),
        ],
    )


def copied(measured: Material, image: str | Path, *, cache_dir: Path | None = None) -> float:
    """The device, read by nbdcopy from a server of cowcloop, without a trace."""
    with cowcloop.serve(image, prefetch="none", cache_dir=cache_dir) as server:
        return measured.size / 1e6 / seconds(["nbdcopy", server.uri, "null:"])


@contextmanager
def _folder(setting: Setting) -> Iterator[Path]:
    """An empty one, in memory."""
    with tempfile.TemporaryDirectory(dir=setting.scratch) as folder:
        yield Path(folder)
