"""The figures of one measurement."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figures:
    """The results of repeating one task in one way, and what kernel cloop did beside it."""

    work: str
    way: str
    unit: str
    values: list[float] = field(default_factory=list)
    kernel: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """How many times as fast as kernel cloop, by medians; None when that was not measured."""
        return self.median / statistics.median(self.kernel) if self.kernel else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "work": self.work,
            "way": self.way,
            "unit": self.unit,
            "min": min(self.values),
            "median": self.median,
            "max": max(self.values),
            "values": self.values,
            "kernel": self.kernel or None,
            "ratio": self.ratio,
        }
