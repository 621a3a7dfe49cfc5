"""The model of a killed server's device can fail: one that cannot proves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.fsx.model import BLOCK, SECTOR, Change, Model
from support.fsx.moments import Moments

OLD, NEW, NEXT = b"o" * BLOCK, b"n" * BLOCK, b"x" * BLOCK
HALF = b"h" * SECTOR


def _unflushed(model: Model) -> None:
    model.write(Change(0, NEW, True))
    model.write(Change(0, NEXT, True))


def _flushed(model: Model) -> None:
    model.write(Change(0, NEW, True))
    model.flush()


def _overwritten(model: Model) -> None:
    _flushed(model)
    model.write(Change(0, NEXT, True))


def _forced(model: Model) -> None:
    model.write(Change(0, NEW, True))
    model.forced(Change(0, NEW, True))
    model.write(Change(0, NEXT, True))


def _zeroed(model: Model) -> None:
    """What a flush has kept of zeros need not be in the cowfile."""
    model.write(Change(0, bytes(BLOCK), False))
    model.flush()
    model.write(Change(0, NEXT, True))


def _unanswered(model: Model) -> None:
    _flushed(model)
    model.open.append(Change(0, HALF, True))


def _unanswered_twice(model: Model) -> None:
    _unanswered(model)
    model.open.append(Change(100, b"1", True))


def _seen_after_a_kill(model: Model) -> None:
    """What was seen stays: its bit is in the cowfile."""
    model.write(Change(0, NEW, True))
    model.check(0, NEW + OLD)
    model.checked()
    model.write(Change(0, NEXT, True))


CASES = [
    (_unflushed, [OLD, NEXT], [NEW, NEXT[:SECTOR] + OLD[SECTOR:]]),
    (_flushed, [NEW], [OLD, NEXT]),
    (_overwritten, [NEXT], [OLD, NEW]),
    (_forced, [NEXT], [OLD, NEW]),
    (_zeroed, [bytes(BLOCK), NEXT], [OLD]),
    (_unanswered, [NEW, HALF + NEW[SECTOR:]], [OLD, HALF[:9] + NEW[9:]]),
    (_unanswered_twice, [NEW[:100] + b"1" + NEW[101:]], [OLD, b"1" + NEW[1:]]),
    (_seen_after_a_kill, [NEXT], [OLD, NEW]),
]


@pytest.mark.parametrize(
    ("life", "right", "wrong"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_what_a_killed_device_may_hold(
    life: Callable[[Model], None], right: list[bytes], wrong: list[bytes]
) -> None:
    def lived() -> Model:
        model = Model(bytearray(OLD * 2))
        life(model)
        return model

    for block in right:
        lived().check(0, block + OLD)
    for block in wrong:
        with pytest.raises(AssertionError, match=r"at (0|512) "):
            lived().check(0, block + OLD)
    with pytest.raises(AssertionError, match=f"at {BLOCK} "):
        lived().check(0, right[0] + b"?" + OLD[1:])


def test_a_refused_request_leaves_its_bytes_as_they_were_or_as_asked() -> None:
    change = Change(700, b"c" * 1000, True)
    for found in (b"o" * 1000, b"c" * 1000, b"c" * 324 + b"o" * 676):
        model = Model(bytearray(OLD * 2))
        model.failed(change, found)
        assert model.read(700, 1000) == found
    with pytest.raises(AssertionError, match="at 700"):
        Model(bytearray(OLD * 2)).failed(change, b"o" * 5 + b"c" * 995)


def test_a_snapshot_is_of_one_moment() -> None:
    model = Model(bytearray(OLD * 2))
    moments = model.moments = Moments()
    for change in (Change(0, NEW, True), Change(BLOCK, NEW, True), Change(0, NEXT, True)):
        model.begin([change])
        model.write(change)
    pair = [Change(BLOCK, b"1", True), Change(BLOCK + 5, b"2", True)]
    model.begin(pair)
    for change in pair:
        model.write(change)
    half, both = NEW[:5] + b"2" + NEW[6:], b"1" + NEW[1:5] + b"2" + NEW[6:]
    was = {(OLD, OLD), (NEW, OLD), (NEW, NEW), (NEXT, NEW), (NEXT, half), (NEXT, both)}
    for first in (OLD, NEW, NEXT):
        for second in (OLD, NEW, half, both):
            possible = moments.all()
            moments.narrow(possible, 0, first, NEXT)
            moments.narrow(possible, 1, second, both)
            assert bool(possible) == ((first, second) in was)
