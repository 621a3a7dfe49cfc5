"""What nbd-client says, of which one line is the error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cowcloop.server import ServerError, nbd_client

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
