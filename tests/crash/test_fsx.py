"""Random requests of any alignment through the server, which is killed again and again.

``COWCLOOP_FSX_SECONDS`` is how long each case goes on, ``COWCLOOP_FSX_SEED`` repeats the requests
of one, though not the moments of its kills.
"""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest
from support import cloop, cowfile
from support.fsx.lives import Lives, Volume
from support.fsx.model import Model
from support.programs import Argument

KIB, MIB = 1 << 10, 1 << 20
SECONDS = float(os.environ.get("COWCLOOP_FSX_SECONDS", "12"))
#: Until this has been done a case goes on, however slow the machine.
WANTED = {
    "write": 100,
    "fua": 2,
    "zero": 20,
    "trim": 20,
    "read": 50,
    "extents": 20,
    "flush": 5,
    "unanswered write": 1,
    "kills": 3,
    "stops": 1,
}

pytestmark = pytest.mark.timeout(1800)


class Case:
    """A device of a size, over a base, with cowfiles and a server's options."""

    def __init__(self, folder: Path, plain: bytes, *, compressed: bool, size: int = 0) -> None:
        self.folder = folder
        self.size = (size or len(plain)) // KIB * KIB
        self.plain = plain[: self.size]
        self.image = folder / "image"
        self.image.write_bytes(cloop.build(plain, 4096) if compressed else plain)
        seed = os.environ.get("COWCLOOP_FSX_SEED")
        self.seed = int(seed) if seed else random.SystemRandom().getrandbits(32)
        self.rng = random.Random(self.seed)
        self.windows = [(0, self.size)]

    def model(self) -> Model:
        # Takes no memory for what is never touched.
        content = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        content[: len(self.plain)] = self.plain
        return Model(content)

    def cow(self, name: str, layout: str | None = None) -> Path:
        """A cowfile, made by the first server, or there as another machine left it."""
        path = self.folder / name
        if layout is not None:
            path.write_bytes(cowfile.build(self.plain, {}, layout))
        return path

    def lives(self, *arguments: Argument, volumes: list[Volume]) -> Lives:
        return Lives(self.rng, arguments, volumes, self.windows, self.folder)

    def run(self, lives: Lives, *, part: int = 1, **wanted: int) -> None:
        """Lives for a part of the time."""
        try:
            lives.run(SECONDS / part, {**WANTED, **wanted})
        finally:
            print(f"seed {self.seed}: {dict(lives.done)}")


@pytest.mark.parametrize("layout", [None, "32-big", "64-big", "32-little"])
def test_a_compressed_base(tmp_path: Path, layout: str | None) -> None:
    case = Case(tmp_path, cloop.sample(3 * MIB, 4096, 3), compressed=True)
    cow = case.cow("c.cow", layout)
    volume = Volume(case.model(), [case.image, cow])
    case.run(case.lives(case.image, cow, volumes=[volume]), part=1 if layout is None else 4)


def test_a_base_of_several_pages_of_bits(tmp_path: Path) -> None:
    """The pages of the bitmap meet at 24 and 56 MiB; a part of a KiB at the end is no device."""
    plain = bytearray(70 * MIB + 700)
    windows = [(0, 40 * KIB), (24 * MIB - 32 * KIB, 64 * KIB), (56 * MIB - 32 * KIB, 64 * KIB)]
    windows.append((70 * MIB - 40 * KIB, 40 * KIB))
    for start, size in windows:
        plain[start : start + size] = cloop.sample(size, 4096, start % 251)
    case = Case(tmp_path, bytes(plain), compressed=False)
    case.windows = windows
    # What takes a while to copy lies between.
    cow = case.cow("c.cow")
    between = {block: b"between" + bytes(1017) for block in range(25 * KIB, 55 * KIB)}
    cow.write_bytes(cowfile.build(case.plain, between, "32-big"))
    volume = Volume(case.model(), [case.image, cow])
    case.run(case.lives(case.image, cow, volumes=[volume]))


def test_a_device_larger_than_its_base(tmp_path: Path) -> None:
    """It has more than 64 pages of bits: the 65th begins at 2040 MiB."""
    size = 2100 * MIB
    case = Case(tmp_path, cloop.sample(64 * KIB, 4096, 4), compressed=True, size=size)
    far = (2040 * MIB - 64 * KIB, 128 * KIB)
    case.windows = [(0, 128 * KIB), (24 * MIB - 32 * KIB, 64 * KIB), far, (size - MIB, MIB)]
    cow = case.cow("c.cow")
    volume = Volume(case.model(), [case.image, cow])
    case.run(case.lives("--size", str(size), case.image, cow, volumes=[volume]))


def test_over_a_cowfile_that_a_kill_left(tmp_path: Path) -> None:
    case = Case(tmp_path, cloop.sample(2 * MIB, 4096, 5), compressed=True)
    model = case.model()
    lower, upper = case.cow("lower.cow", "32-big"), case.cow("upper.cow")
    below = case.lives(case.image, lower, volumes=[Volume(model, [case.image, lower])])
    below.live("kill")
    model.restacked()
    volume = Volume(model, [case.image, lower, upper])
    case.run(case.lives(case.image, lower, upper, volumes=[volume]))


@pytest.mark.parametrize("quota", [None, 600 * KIB])
def test_sessions(tmp_path: Path, quota: int | None) -> None:
    case = Case(tmp_path, cloop.sample(2 * MIB, 4096, 6), compressed=True)
    folder = tmp_path / "sessions"
    volumes = [
        Volume(case.model(), [case.image, folder / f"{name}.cow"], name)
        for name in ("anna", "bert", "carla")
    ]
    options: list[Argument] = ["--sessions", folder]
    if quota is not None:
        options += ["--session-quota", str(quota)]
    lives = case.lives(case.image, *options, volumes=volumes)
    if quota is None:
        case.run(lives, part=2)
        assert lives.done["ENOSPC"] == 0
    else:
        case.run(lives, part=2, ENOSPC=10)
