"""Pictures of a device. They are drawn by `terminal`, and through `drawing` by `svg` and `png`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cowcloop.sizes import format_size

#: What a cell is drawn as: an index into COLOURS, LETTERS and NAMES.
ZERO, DENSE_1, DENSE_2, DENSE_3, DENSE_4, CHANGED, DAMAGED, BEYOND = range(8)

#: Compressed to at most this share of the size; darker is larger.
_SHARES = (0.25, 0.5, 0.75)

#: Told apart in grey and by the colour blind: blues by lightness, orange, red.
COLOURS = (
    (238, 238, 238),
    (198, 219, 239),
    (133, 184, 219),
    (66, 130, 189),
    (16, 78, 139),
    (253, 150, 39),
    (203, 24, 29),
    (255, 255, 255),
)
LETTERS = ".1234#X "
NAMES = (
    "zeros",
    "compressed to 25 % or less",
    "to 50 %",
    "to 75 %",
    "to more, or not compressed",
    "changed in the cowfile",
    "damaged",
)

_KEYS = (
    "zero",
    "compressed_to_25_percent",
    "compressed_to_50_percent",
    "compressed_to_75_percent",
    "compressed_to_more",
    "changed",
    "damaged",
)


@dataclass(frozen=True)
class Picture:
    """The cells of a device in reading order, and what it holds in bytes, by kind."""

    title: str
    size: int
    columns: int
    cells: tuple[int, ...]
    totals: tuple[int, ...]
    stored: int

    @classmethod
    def of(
        cls,
        title: str,
        size: int,
        parts: Sequence[tuple[int, Sequence[int], int, int]],
        columns: int,
        bad: Iterable[tuple[int, int]] = (),
    ) -> Picture:
        """From `_core.device_map`'s cells, and (offset, length) of what is damaged in the base."""
        damaged = _spread(size, len(parts), bad)
        totals = [0] * len(NAMES)
        cells = []
        for number, (zero, quarters, stored, changed) in enumerate(parts):
            data = sum(quarters)
            # A block that lies in the cowfile is not read from the base any more.
            lost = min(damaged.get(number, 0), data)
            shade = _shade(stored, data)
            totals[ZERO] += zero
            totals[CHANGED] += changed
            totals[DAMAGED] += lost
            # Which of a cell's blocks are damaged is not known here: the largest share first.
            left = lost
            for kind, held in sorted(enumerate(quarters, DENSE_1), key=lambda one: -one[1]):
                taken = min(left, held)
                totals[kind] += held - taken
                left -= taken
            cells.append(DAMAGED if lost else CHANGED if changed else shade if data else ZERO)
        return cls(title, size, columns, tuple(cells), tuple(totals), sum(p[2] for p in parts))

    @property
    def rows(self) -> int:
        """Lines of cells."""
        return math.ceil(len(self.cells) / self.columns)

    @property
    def scale(self) -> str:
        """The bytes that one cell stands for."""
        return format_size(math.ceil(self.size / len(self.cells))) if self.cells else "nothing"

    def lines(self) -> Iterator[tuple[int, ...]]:
        """The cells line by line; the last line may be short."""
        for at in range(0, len(self.cells), self.columns):
            yield self.cells[at : at + self.columns]

    def row_of(self, offset: int) -> int:
        """The line of cells that a byte of the device lies in."""
        return _cell_of(self.size, len(self.cells), offset) // self.columns

    def legend(self) -> list[tuple[int, str]]:
        """The meaning of each kind of cell, with its total."""
        return [
            (kind, f"{name}: {format_size(size)} ({_percent(size, self.size)})")
            for kind, (name, size) in enumerate(zip(NAMES, self.totals))
            if size or kind < DAMAGED
        ]

    def json(self) -> dict[str, object]:
        """The totals in bytes, for programs."""
        return {
            "title": self.title,
            "size": self.size,
            "stored": self.stored,
            **dict(zip(_KEYS, self.totals)),
        }

    def heading(self) -> str:
        """Name, size and scale in one line."""
        data = self.totals[DENSE_1 : DENSE_4 + 1]
        held = sum(data) + self.totals[DAMAGED]
        ratio = f", data compressed to {100 * self.stored / held:.1f} %" if held else ""
        return f"{self.title}: {format_size(self.size)}{ratio}; a cell is {self.scale}"


def _percent(part: int, whole: int) -> str:
    """A share with one digit; a little is never shown as 0, nor most as 100."""
    share = 100 * part / whole if whole else 0.0
    if part and share < 0.05:
        return "< 0.1 %"
    if part < whole and share >= 99.95:
        return "> 99.9 %"
    return f"{share:.1f} %"


def _shade(stored: int, data: int) -> int:
    if not data:
        return DENSE_1
    share = stored / data
    return DENSE_1 + sum(share > limit for limit in _SHARES)


def _cell_of(size: int, cells: int, at: int) -> int:
    """As the engine divides it."""
    return ((at + 1) * cells - 1) // size


def _spread(size: int, cells: int, ranges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Bytes of the ranges in each cell, as the engine divides the device."""
    found: dict[int, int] = {}
    for offset, length in ranges:
        at, end = offset, min(offset + length, size)
        while at < end:
            cell = _cell_of(size, cells, at)
            stop = min(end, (cell + 1) * size // cells)
            found[cell] = found.get(cell, 0) + stop - at
            at = stop
    return found
