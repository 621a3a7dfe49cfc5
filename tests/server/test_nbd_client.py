"""What nbd-client says, of which one line is the error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cowcloop import mounts
from cowcloop.registry import Record
from cowcloop.server import ServeOptions, Server, ServerError, attach, block_device, nbd_client

# As version 3.24 says it.
_SAID = {
    "CONNECT failed": (
        "Warning: the oldstyle protocol is no longer supported.\n"
        "This method now uses the newstyle protocol with a default export\n"
        "Error: CONNECT failed\n"
    ),
    "Couldn't resolve the nbd netlink family": (
        "Error: Couldn't resolve the nbd netlink family\n\nExiting.\n"
    ),
    "other words": "first\nother words\n",
    "exit status 3": "",
}


@pytest.mark.parametrize("told", _SAID)
def test_the_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    (tmp_path / "said").write_text(_SAID[told])
    fake = tmp_path / "nbd-client"
    fake.write_text(f"#!/bin/sh\ncat {tmp_path}/said >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ServerError) as caught:
        nbd_client.connect("/dev/nbd0", "/nowhere")
    assert str(caught.value) == f"/dev/nbd0: nbd-client: {told}"


def test_a_mount_of_the_device_is_named_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names hold any bytes, and blanks as octal digits; a partition is a part of the device."""
    table = tmp_path / "mountinfo"
    line = b"36 35 0:77 / /mnt/\xc3\xa9t\xc3\xa9\\040\xff rw,noatime - ext4 /dev/nbd0 rw\n"
    table.write_bytes(b"35 1 0:20 / / rw shared:1 - overlay overlay rw\n" + line)
    monkeypatch.setattr(mounts, "TABLE", str(table))
    record = Record(1, "nbd://", None, "/image", [], device="/dev/nbd0")
    with pytest.raises(ServerError) as caught:
        block_device.let_go(record)
    place = os.fsdecode(b"/mnt/\xc3\xa9t\xc3\xa9 \xff")
    assert str(caught.value) == f"/dev/nbd0 is mounted on {place}: unmount it first"

    table.write_bytes(line.replace(b"/dev/nbd0", b"/dev/nbd0p1").replace(b"0:77", b"43:1"))
    monkeypatch.setattr(
        os.path,
        "realpath",
        lambda path: {"/sys/dev/block/43:1": "/sys/devices/block/nbd0/nbd0p1"}.get(path, path),
    )
    found = mounts.of_device("/dev/nbd0")
    assert found is not None
    assert found.point == place
    assert mounts.of_device("/dev/nbd1") is None


def test_nothing_is_left_where_the_device_cannot_be_connected(
    image: Path, tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of a server in the foreground nor of one in the background."""
    socket = tmp_path / "s"

    def fail(device: str, _socket: str) -> None:
        raise ServerError(f"{device}: nbd-client: it failed")

    monkeypatch.setattr(nbd_client, "check", lambda _device: None)
    monkeypatch.setattr(nbd_client, "connect", fail)
    options = ServeOptions.of(image, unix=str(socket), device="/dev/nbd0")
    for begin in (lambda: Server(options).start(), lambda: attach(options, report=print)):
        with pytest.raises(ServerError, match="it failed"):
            begin()
        assert not socket.exists()
        assert list((runtime / "cowcloop").iterdir()) == []
