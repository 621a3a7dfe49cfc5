"""What a server fetches, as its metrics tell it, against what was really asked for."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support import nbdclient
from support.liar import Liar
from support.server import free_port, serving, wait_until

CHUNK = 64 << 10


def scrape(port: int) -> dict[str, float]:
    """Each sample that has no labels, without the first word of its name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    families: Any = text_string_to_metric_families  # which has no types
    return {
        sample.name.removeprefix("cowcloop_"): sample.value
        for family in families(text)
        for sample in family.samples
        if not sample.labels
    }


def test_fetches_are_counted_as_the_server_has_them(server: Liar, raw: bytes, cache: Path) -> None:
    port = free_port()
    with serving(server.url, "--metrics", str(port), "--timeout", "5", quiet=False) as served:
        client = nbdclient.connect(served.uri)
        assert bytes(client.pread(512, 1 << 20)) == raw[1 << 20 : (1 << 20) + 512]
        found = scrape(port)
        assert found["fetches_total"] == len(server.asked) >= 2
        assert found["fetched_bytes_total"] == sum(end - first for first, end in server.asked)
        # A reader has its bytes before the cache does.
        wait_until(
            lambda: scrape(port)["fetch_kept_bytes"] == found["fetched_bytes_total"],
            "what was fetched in the cache",
        )
        for name in ("retries", "failures", "renewals"):
            assert found[f"fetch_{name}_total"] == 0
        # One that fails twice, and one that fails for good.
        begin = len(server.asked)
        server.lie = lambda number, asked: "broken" if number < begin + 2 else None
        assert bytes(client.pread(512, 3 << 20)) == raw[3 << 20 : (3 << 20) + 512]
        found = scrape(port)
        assert (found["fetch_retries_total"], found["fetch_failures_total"]) == (2, 0)
        assert found["fetches_total"] == len(server.asked)
        server.lie = lambda number, asked: "broken"
        with pytest.raises(nbdclient.module().Error):
            client.pread(512, 4 << 20)
        assert scrape(port)["fetch_failures_total"] == 1
        client.shutdown()


def test_what_was_fetched_wrongly_is_counted(
    compressed: Liar, device: bytes, cache: Path, tmp_path: Path
) -> None:
    port = free_port()
    with serving(compressed.url, "--metrics", str(port), quiet=False) as served:
        client = nbdclient.connect(served.uri)
        begin = len(compressed.asked)
        compressed.lie = lambda number, asked: "wrong" if number == begin else None
        assert bytes(client.pread(512, 700_416)) == device[700_416:700_928]
        assert scrape(port)["fetch_renewals_total"] == 1
        client.shutdown()


def test_an_image_of_this_machine_fetches_nothing(tmp_path: Path, raw: bytes) -> None:
    image = tmp_path / "a.raw"
    image.write_bytes(raw)
    port = free_port()
    with serving(image, "--metrics", str(port)):
        wait_until(lambda: "image_reads_total" in scrape(port), "metrics")
        assert not [name for name in scrape(port) if "fetch" in name]
