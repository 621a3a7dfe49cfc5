"""Sizes, addresses and levels, as people write them."""

from __future__ import annotations

import pytest
from cowcloop.server.address import parse_tcp
from cowcloop.sizes import format_size, parse_size
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("64K", 65536),
        ("64k", 65536),
        ("64KiB", 65536),
        ("64KB", 65536),
        ("512B", 512),
        ("64M", 64 << 20),
        ("1G", 1 << 30),
        ("2T", 2 << 40),
        (" 1G ", 1 << 30),
        ("7E", 7 << 60),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "-1", "+1", "1.5G", "12Q", "1 K", "0x10", "٣", "8E", "9" * 5000, "1KK"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@settings(deadline=None)
@given(st.integers(0, (1 << 63) - 1))
def test_a_plain_number_is_itself(size: int) -> None:
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 40, "5.0 TiB"),
        ((1 << 63) - 1, "8.0 EiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10809", ("127.0.0.1", 10809)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:10809", ("0.0.0.0", 10809)),
        ("localhost:1", ("localhost", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_tcp(text: str, address: tuple[str, int]) -> None:
    assert parse_tcp(text) == address


@pytest.mark.parametrize("text", ["", ":1", "host", "host:", "1:2:3", "::1:80", "h:65536", "h:-1"])
def test_no_tcp(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|host|brackets"):
        parse_tcp(text)
