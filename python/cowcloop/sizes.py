"""Sizes in bytes, as users write and read them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+)(?:([KMGTPE])(?:i?B)?|B)?", re.IGNORECASE | re.ASCII)
_UNITS = "KMGTPE"
_LIMIT = 1 << 63


def parse_size(text: str) -> int:
    """Bytes in ``512``, ``64K``, ``64M``, ``1G`` (powers of 1024).

    ValueError says what is wrong with it.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes, or a number and K, M, G or T")
    digits, unit = match.groups()
    # Python refuses to convert very long digit strings; no size needs 20 digits.
    value = _LIMIT if len(digits) > 19 else int(digits)
    if unit:
        value <<= 10 * (_UNITS.index(unit.upper()) + 1)
    if value >= _LIMIT:
        raise ValueError(f"{text!r} is too large: a size is below 8 EiB")
    return value


def size_of(value: int | str | None) -> int | None:
    """Bytes, which may be given as text; None stays None."""
    return parse_size(value) if isinstance(value, str) else value


def format_size(size: int) -> str:
    """A size for display: ``512 bytes``, ``64.0 KiB``, ``1.5 GiB``."""
    if size < 1024:
        return f"{size} byte" if size == 1 else f"{size} bytes"
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        value /= 1024
        if value < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}iB"


def size_in_full(size: int) -> str:
    """A size for display, with all its digits: ``64.0 KiB (65536 bytes)``."""
    return f"{format_size(size)} ({size} bytes)" if size >= 1024 else format_size(size)
