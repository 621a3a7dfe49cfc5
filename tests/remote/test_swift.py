"""A real S3 server, which checks signatures: OpenStack Swift, of the distribution."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cowcloop
import pytest
from support import nbdclient
from support.cloop import build
from support.programs import ROOT, missing, refused
from support.programs import cowcloop as run
from support.server import serving

PYTHON = "/usr/bin/python3"
SWIFT = Path("/usr/lib/python3/dist-packages/swift/proxy/server.py")
KEY, SECRET, BUCKET = "test:tester", "s3cret", "images"
URL = f"s3://{BUCKET}/live/a b.img"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, device: bytes) -> Iterator[str]:
    """That of a Swift with a compressed image in its bucket."""
    if not SWIFT.exists():
        missing("Swift is not installed (Debian package python3-swift)")
    folder = tmp_path_factory.mktemp("swift")
    try:
        os.setxattr(folder, "user.test", b"1")
    except OSError as error:
        pytest.skip(f"Swift keeps attributes with its files: {folder}: {error.strerror}")
    (folder / "objects/live").mkdir(parents=True)
    (folder / "objects/live/a b.img").write_bytes(build(device))
    # Its own folder has modules of ours with the names of others.
    script = str(ROOT / "tests/support/swift_server.py")
    command = [PYTHON, "-I", script, str(folder), KEY, SECRET, BUCKET]
    with (folder / "errors").open("w+b") as errors:
        pipe = subprocess.PIPE
        # It ends when its standard input does.
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors) as process:
            assert process.stdout is not None
            line = process.stdout.readline().decode().strip()
            errors.seek(0)
            assert line, errors.read().decode()
            yield line


@pytest.fixture(autouse=True)
def bucket(port: str, cache: Path, signs: Callable[[str, str, str], None]) -> Path:
    """What the environment says of it; the cache."""
    signs(f"http://127.0.0.1:{port}", KEY, SECRET)
    return cache


def test_it_is_served(device: bytes, tmp_path: Path) -> None:
    with serving(URL, tmp_path / "c") as server:
        client = nbdclient.connect(server.uri)
        assert bytes(client.pread(100_000, 900_000)) == device[900_000:1_000_000]
        client.pwrite(b"changed", 70_000)
        client.flush()
        client.shutdown()
    with cowcloop.open(URL, tmp_path / "c") as disk:
        assert disk.pread(7, 70_000) == b"changed"


def test_it_is_extracted_and_verified(device: bytes, tmp_path: Path) -> None:
    run("extract", URL, tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[: len(device)] == device
    found = json.loads(run("verify", URL, "--json").stdout)
    assert (found["bad_blocks"], found["blocks"]) == (0, -(-len(device) // 65536))


def test_it_is_pulled(device: bytes, tmp_path: Path) -> None:
    run("pull", URL, tmp_path / "a.img")
    assert (tmp_path / "a.img").read_bytes() == build(device)


def test_an_image_that_is_kept_needs_no_store(
    device: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("pull", URL)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with cowcloop.open(URL, offline=True) as disk:
        assert disk.read()[: len(device)] == device


@pytest.mark.parametrize(
    ("name", "value"), [("SECRET_ACCESS_KEY", "wr0ng"), ("ACCESS_KEY_ID", "test:n0body")]
)
def test_wrong_credentials(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"AWS_{name}", value)
    line = refused("info", URL, says=("a%20b.img", "403 Forbidden"))
    assert value not in line


def test_what_is_not_there() -> None:
    refused("info", f"s3://{BUCKET}/none", says="404 Not Found")
    refused("info", "s3://none/a.img", says="404 Not Found")
