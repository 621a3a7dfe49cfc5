"""Object stores: requests that are signed, by credentials of the environment alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import cowcloop
import pytest
from support.liar import Liar
from support.programs import cowcloop as run
from support.programs import refused

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def signed(path: str, headers: dict[str, str]) -> bool:
    """Whether a request has the signature (AWS, version 4) that our key makes of it."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme != "AWS4-HMAC-SHA256":
        return False
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    key, *scope = parts["Credential"].split("/")
    names = parts["SignedHeaders"].split(";")
    url, _, query = path.partition("?")
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in names]
    canonical = ["GET", url, query, *lines, "", ";".join(names), headers["x-amz-content-sha256"]]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    text = "\n".join([scheme, headers["x-amz-date"], "/".join(scope), digest])
    made = b"AWS4" + SECRET.encode()
    for part in scope:
        made = hmac.new(made, part.encode(), hashlib.sha256).digest()
    right = hmac.new(made, text.encode(), hashlib.sha256).hexdigest()
    return key == KEY and {"host", "x-amz-date"} <= {*names} and right == parts["Signature"]


@pytest.fixture
def bucket(compressed: Liar, signs: Callable[[str, str, str], None]) -> Liar:
    """A store that takes requests which our key has signed."""
    compressed.lets_in = signed
    signs(compressed.url.partition("/images")[0], KEY, SECRET)
    return compressed


def test_every_request_is_signed(bucket: Liar, device: bytes) -> None:
    with cowcloop.open("s3://images/live/a b.img") as disk:
        assert disk.read()[: len(device)] == device
    assert all("if-match" in {name.lower() for name in heads} for heads in bucket.heads[1:])


def test_a_wrong_key_is_refused(bucket: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    line = refused("info", "s3://images/a.img", says="403 Forbidden")
    assert "another" not in line


def test_credentials_may_expire_and_come_back(bucket: Liar, device: bytes) -> None:
    with cowcloop.open("s3://images/a.img") as disk:
        bucket.lets_in = lambda path, headers: False
        with pytest.raises(OSError, match="403 Forbidden"):
            disk.pread(100, 900_000)
        bucket.lets_in = signed
        assert disk.pread(100, 900_000) == device[900_000:900_100]


def test_pull_from_a_store(bucket: Liar, tmp_path: Path) -> None:
    run("pull", "s3://images/a.img", tmp_path / "a.img")
    assert (tmp_path / "a.img").read_bytes() == bucket.content


def test_a_system_without_authorities_is_told_of_before_anything_is_sent(
    signs: Callable[[str, str, str], None], tmp_path: Path
) -> None:
    none = tmp_path / "none.pem"
    none.touch()
    system = {"SSL_CERT_FILE": str(none), "SSL_CERT_DIR": str(tmp_path)}
    signs("https://127.0.0.1:1", KEY, SECRET)
    refused("info", "s3://images/a.img", "--timeout", "1", env=system, says="ca-certificates")
