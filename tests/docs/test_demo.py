"""What `make demo` shows: it runs to its end, keeps its promises, and leaves nothing behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.programs import ROOT, cowcloop_path, mannered, program, run

SCRIPT = ROOT / "scripts" / "demo.py"


@pytest.mark.skipif(
    Path(cowcloop_path()) != Path(sys.executable).with_name("cowcloop"),
    reason="the demo runs the cowcloop of its own interpreter",
)
def test_the_demo(loop: None, fuse: None) -> None:
    program("genisoimage", "genisoimage")
    done = run(sys.executable, SCRIPT)
    mannered(done.stderr.decode())
    shown = done.stdout.decode()
    for command in ("cowcloop attach", "nbdfuse nbd/chicken", "cowcloop mount", "e2fsck -fn"):
        assert f"$ {command}" in shown
    assert "Done: the base unchanged" in shown
    work = shown.partition("$ cd ")[2].splitlines()[0]
    assert work.startswith("/tmp/cowcloop-demo-")
    assert work not in Path("/proc/mounts").read_text()
    assert not os.path.lexists(work)
