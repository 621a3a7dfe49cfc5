"""session commit reads the image as its server does."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from support.liar import liar
from support.programs import cowcloop, refused
from support.server import Server, listed, serving
from support.sessions import PLAIN, join


def write(server: Server, name: str) -> None:
    """A session that has changes."""
    client = join(server, name)
    client.pwrite(name.encode(), 70_000)
    client.flush()
    client.shutdown()


def changed(name: str) -> bytes:
    """The image with them."""
    data = name.encode()
    return PLAIN[:70_000] + data + PLAIN[70_000 + len(data) :]


def test_an_image_that_only_a_secret_opens(
    folder: Path, tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with liar(PLAIN) as far:
        far.lets_in = lambda path, _: path.endswith("?token=t0ken")
        url = far.url + "?token=t0ken"
        # Whose limit counts, however little of the disk is free.
        kept = ("--cache-dir", tmp_path / "kept", "--cache-limit", "64M")
        with serving(url, "--sessions", folder, *kept) as server:
            write(server, "anna")
            assert "t0ken" not in json.dumps(listed())
            (record,) = (runtime / "cowcloop").glob("*/device.json")
            assert stat.S_IMODE(record.stat().st_mode) == 0o600
            done = cowcloop("session", "commit", server.uri, "anna", tmp_path / "new")
            assert "t0ken" not in (done.stdout + done.stderr).decode()
            # It is in the server's cache, which the command takes.
            assert not (tmp_path / "cache").exists()
            command = ("session", "commit", server.uri, "anna", tmp_path / "more")
            cowcloop(*command, "--cache-dir", tmp_path / "other")
            assert (tmp_path / "other").exists()
    for made in ("new", "more"):
        assert cowcloop("extract", tmp_path / made, "-").stdout == changed("anna")


def test_an_image_that_is_verified(folder: Path, tmp_path: Path) -> None:
    """What the server would not read is in no new image."""
    image, tree = tmp_path / "raw", tmp_path / "tree"
    image.write_bytes(PLAIN)
    digest = cowcloop("digest", image, "--tree", tree).stdout.split()[0].decode()
    there = Path(os.path.relpath(tree))
    options = ("--verity", digest, "--verity-tree", there)
    with serving(image, "--sessions", folder, *options, quiet=False) as server:
        write(server, "anna")
        cowcloop("session", "commit", server.uri, "anna", tmp_path / "new", cwd=tmp_path)
        with image.open("r+b") as file:
            file.seek(500_000)
            file.write(b"another")
        refused(
            "session", "commit", server.uri, "anna", tmp_path / "more", cwd=tmp_path,
            says=("raw", "digest"),
        )  # fmt: skip
    assert cowcloop("extract", tmp_path / "new", "-").stdout == changed("anna")
    assert not (tmp_path / "more").exists()
