"""The programs that `cowcloop live` runs: when they fail, or when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.bootable import INITRD, VERSION
from support.guest.initramfs import busybox
from support.programs import (
    PATIENCE,
    cowcloop,
    cowcloop_path,
    missing,
    one_line,
    program,
    refused,
    run,
)
from support.server import alive, wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Programs in it are found before those of the machine."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


def write(folder: Path, name: str, script: str) -> dict[str, str]:
    """A program of the test's own; the environment in which it is found."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_what_a_tool_says_is_said(tree: Path, initrd: Path, folder: Path, tmp_path: Path) -> None:
    env = write(folder, "grub-mkrescue", "echo start; echo 'xorriso : FAILURE : disc' >&2; exit 5")
    out = tmp_path / "live.iso"
    words = ("live", tree, out, "--initrd", initrd)
    refused(*words, env=env, says=("live.iso", "grub-mkrescue", "FAILURE : disc"))
    env = write(folder, "grub-mkrescue", "exit 5")
    refused(*words, env=env, says=("grub-mkrescue", "exit status 5"))
    assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(
    tree: Path, initrd: Path, folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Nor does a program go on that a tool has started."""
    here = tmp_path / "here"
    here.mkdir()
    mark = tmp_path / "mark"
    env = write(
        folder,
        "grub-mkrescue",
        f'sleep 1000 &\necho $! >"{mark}.part"\nmv "{mark}.part" "{mark}"\nwait',
    )
    child = subprocess.Popen(
        [cowcloop_path(), "live", tree, here / "live.iso", "--initrd", initrd, "--free", "0"],
        stderr=subprocess.PIPE,
        env={**os.environ, **env},
    )
    wait_until(mark.exists, "the tool")
    assert list(here.iterdir()) != []
    child.send_signal(number)
    said = child.communicate(timeout=PATIENCE)[1].decode()
    assert child.returncode == 128 + number
    one_line(said, "interrupted")
    assert list(here.iterdir()) == []
    sleeper = int(mark.read_text())
    wait_until(lambda: not alive(sleeper), "its end")


def test_an_initramfs_with_the_hook_is_taken(tree: Path, tmp_path: Path) -> None:
    program("lsinitramfs", "initramfs-tools-core")
    files = tmp_path / "files"
    mark = files / "usr/lib/cowcloop/root.sh"
    mark.parent.mkdir(parents=True)
    mark.write_bytes(INITRD)
    # mkinitramfs copies it whether the hook has done its part or not.
    (files / "scripts").mkdir()
    (files / "scripts/cowcloop").touch()
    ready = tree / f"boot/initrd.img-{VERSION}"
    pack = f"cd {files} && find . | {program('cpio', 'cpio')} -o -H newc | gzip >{ready}"
    run("sh", "-c", pack)
    iso = tmp_path / "live.iso"
    cowcloop("live", tree, iso, "--free", "0")
    assert cowcloop("extract", f"{iso}:/live/initrd", "-").stdout == ready.read_bytes()
    # Without the hook it is none that could boot.
    mark.unlink()
    run("sh", "-c", pack)
    refused("live", tree, iso, says=(f"no modules of the kernel {VERSION}", "--initrd"))


def test_a_hook_that_leaves_itself_out_is_told(tree: Path, tmp_path: Path) -> None:
    """As it does without busybox: what mkinitramfs has made then could not boot."""
    program("lsinitramfs", "initramfs-tools-core")
    try_namespaces()
    for folder in ("bin", "dev", "proc", "sys", "tmp", f"usr/lib/modules/{VERSION}"):
        (tree / folder).mkdir(parents=True)
    hook = tree / "usr/share/initramfs-tools/hooks/cowcloop"
    hook.parent.mkdir(parents=True)
    hook.touch()
    (tree / "bin/busybox").write_bytes(busybox().read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    for name in ("sh", "env", "cp"):
        (tree / "bin" / name).symlink_to("busybox")
    write(tree / "bin", "mkinitramfs", 'cp /made "$2"')
    files = tmp_path / "files"
    (files / "scripts").mkdir(parents=True)
    (files / "scripts/cowcloop").touch()
    pack = f"find . | {program('cpio', 'cpio')} -o -H newc | gzip >{tree / 'made'}"
    run("sh", "-c", pack, cwd=files)
    says = ("tree", VERSION, "busybox", "COWCLOOP=n")
    refused("live", tree, tmp_path / "live.iso", "--free", "0", says=says)
    assert not (tmp_path / "live.iso").exists()


def try_namespaces() -> None:
    """What `live` makes an initramfs in."""
    words = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    done = run("unshare", *words, "mount", "--bind", "/proc", "/mnt", expect=None)
    if done.returncode:
        missing(f"no mount in a namespace of its own: {done.stderr.decode().strip()}")


def test_where_no_hook_is(tree: Path, tmp_path: Path) -> None:
    program("mkinitramfs", "initramfs-tools-core")
    if Path("/usr/share/initramfs-tools/hooks/cowcloop").exists():
        pytest.skip("this machine has the hook")
    (tree / "usr/lib/modules" / VERSION).mkdir(parents=True)
    refused("live", tree, tmp_path / "live.iso", says=("Debian package", "--initrd"))
