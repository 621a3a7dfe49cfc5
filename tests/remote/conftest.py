"""Images and servers for tests of images far away."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cloop import build
from support.liar import Liar, liar
from support.programs import cache_home

#: Bytes of the raw image.
SIZE = (5 << 20) + 12_345


def noise(size: int, seed: int = 7) -> bytes:
    """Bytes that no compressor makes smaller, the same each time."""
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="session")
def raw() -> bytes:
    """A raw image."""
    return noise(SIZE)


@pytest.fixture(scope="session")
def device() -> bytes:
    """What the compressed image holds: noise, text and zeros."""
    return noise(1 << 20) + b"some text that repeats itself, " * 40_000 + bytes(1 << 20)


@pytest.fixture
def server(raw: bytes) -> Iterator[Liar]:
    """A server of the raw image."""
    with liar(raw) as made:
        yield made


@pytest.fixture
def compressed(device: bytes) -> Iterator[Liar]:
    """A server of the compressed image."""
    with liar(build(device)) as made:
        yield made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own, which commands use unless told otherwise."""
    with cache_home(tmp_path) as home:
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        yield home / "cowcloop" / "images"


@pytest.fixture
def signs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Makes the environment name an object store: its URL, a key and the secret."""

    def set_environment(endpoint: str, key: str, secret: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    return set_environment
