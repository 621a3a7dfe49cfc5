"""What is measured: works, their contenders, and the figures that came out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# The contender whose ratio to each other one is shown.
OURS = "cowcloop"


class UnavailableError(Exception):
    """A contender that cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Unit:
    """What a figure counts, and whether more of it is better."""

    name: str
    more_is_better: bool = True


RATE = Unit("MB/s")
READS = Unit("reads/s")
WRITES = Unit("writes/s")
SECONDS = Unit("s", more_is_better=False)
MILLISECONDS = Unit("ms", more_is_better=False)
SIZE = Unit("MB", more_is_better=False)


@dataclass(frozen=True)
class Contender:
    """One program doing a work. ``run`` prepares, measures, clears up and returns the figure."""

    name: str
    run: Callable[[], float]


@dataclass(frozen=True)
class Work:
    """Something that several programs can do, in one unit."""

    name: str
    title: str
    unit: Unit
    contenders: Sequence[Contender]
    # How often each contender runs; None: as often as the command line says.
    runs: int | None = None


@dataclass
class Row:
    """The figures of one contender in one work, in the order that they were measured."""

    work: str
    title: str
    contender: str
    unit: Unit
    figures: list[float] = field(default_factory=list)
    # Processor cores of the machine that it ran on; None: all that this one has.
    cores: int | None = None
    unavailable: str = ""
    # Processor time that the hypervisor gave to others, in percent of all, for each figure.
    steal: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle figure."""
        return statistics.median(self.figures)

    def ratio_of(self, ours: Row) -> float:
        """How many times as good ours is: above 1 we win, below 1 we lose."""
        if self.unit.more_is_better:
            return ours.median / self.median
        return self.median / ours.median
