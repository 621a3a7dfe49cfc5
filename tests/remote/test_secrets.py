"""Secrets that a URL holds are shown by nothing: no message, list, log, name or process."""

from __future__ import annotations

import json
from pathlib import Path

import cowcloop
import pytest
from cowcloop.server.options import ServeOptions
from cowcloop.source import locate
from support.liar import Liar
from support.programs import cowcloop as run
from support.programs import refused
from support.server import children, listed, serving, wait_until

PASSWORD, TOKEN = "s3cret", "t0ken"


@pytest.fixture
def secret(server: Liar, cache: Path) -> str:
    """The URL of the raw image, with a password and a signature."""
    return server.url.replace("http://", f"http://me:{PASSWORD}@") + f"?token={TOKEN}"


def hides(text: str) -> None:
    """Neither of them is in it."""
    assert PASSWORD not in text
    assert TOKEN not in text


def test_objects_show_none(secret: str) -> None:
    image = cowcloop.CloopImage(secret)
    hides(repr(image))
    with pytest.raises(cowcloop.ImageFormatError, match="not a cloop") as raised:
        image.info()
    hides(str(raised.value))
    hides(repr(locate(secret)))
    hides(repr(ServeOptions.of(secret)))
    with cowcloop.serve(secret) as server:
        hides(repr(server))
    hides(repr(server))


def test_figures_of_a_compressed_image_show_none(compressed: Liar, cache: Path) -> None:
    url = compressed.url + f"?token={TOKEN}"
    hides(repr(cowcloop.CloopImage(url).info()))
    for command in ("info", "verify", "digest", "map"):
        done = run(command, url, "--json")
        assert json.loads(done.stdout)["image"] == compressed.url + "?..."
        hides((done.stdout + done.stderr).decode() + run(command, url).stdout.decode())


def test_the_server_s_process_shows_none(secret: str) -> None:
    with serving("-v", secret, quiet=False) as server:
        (nbdkit,) = children(server.pid)
        hides(Path(f"/proc/{nbdkit}/cmdline").read_bytes().decode())
        hides(json.dumps(listed()))
    assert "runs" in server.errors
    hides(server.errors)


def test_the_url_of_a_trace_shows_none(secret: str, server: Liar) -> None:
    trace = secret.replace("a.img", "a.trace")
    hides(repr(ServeOptions.of(secret, trace=trace)))
    warning = f"{server.url.replace('a.img', 'a.trace')}?...: no trace is replayed"
    with serving("-v", secret, "--trace", trace, quiet=False) as served:
        (nbdkit,) = children(served.pid)
        hides(Path(f"/proc/{nbdkit}/cmdline").read_bytes().decode())
        wait_until(lambda: warning in served.said(), "the warning that it is missing")
    hides(served.errors)


def test_nbdkit_s_own_log_shows_none(secret: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    uri = run("attach", "-vv", "--log", log, secret).stdout.decode().strip()
    run("detach", uri)
    assert "debug" in log.read_text()
    hides(log.read_text())


@pytest.mark.usefixtures("fuse", "loop")
def test_what_cannot_be_mounted(secret: str, tmp_path: Path) -> None:
    hides(refused("mount", secret, tmp_path, says=("?...", "no file system")))
