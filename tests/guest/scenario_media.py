"""What the guest of test_media.py does: media that the kernel mounts, and many sessions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from inside import PATIENCE, sh, tell, wait_until  # type: ignore[import-not-found]

BASE = "/payload/images/base.cloop"


def example() -> None:
    """Example 2 of the cowloop page: a compressed file system on a CD, its cowfile on a stick."""
    for name in ("cd", "stick", "files"):
        os.makedirs(f"/mnt/{name}")
    sh("mount -t iso9660 -o loop,ro /payload/images/cd.iso /mnt/cd")
    sh("mount -t vfat -o loop /data/stick.img /mnt/stick")
    before = sh("sha256sum /mnt/cd/chicken").stdout
    mount = "cowcloop mount /mnt/cd/chicken /mnt/stick/chicken.cow /mnt/files"
    sh(mount, "example mounted")
    sh("echo 'copied in' >/mnt/files/new.txt")
    sh("cowcloop umount /mnt/files", "example unmounted")
    sh(mount)
    sh("cat /mnt/files/new.txt", "example again")
    sh("cowcloop umount /mnt/files")
    sh("cowcloop info --json /mnt/stick/chicken.cow", "example cowfile")
    tell("example base", sh("sha256sum /mnt/cd/chicken").stdout == before)
    sh("cowcloop extract /mnt/cd/chicken /mnt/stick/chicken.cow /tmp/chicken.raw")
    sh("e2fsck -fn /tmp/chicken.raw", "example check")
    sh("umount /mnt/stick /mnt/cd")
    sh("fsck.vfat -n /data/stick.img", "stick check")


def images() -> None:
    """Compressed media of other kinds, mounted by this kernel itself."""
    sh("cowcloop mount /payload/images/disc.cloop /mnt/files")
    sh("sha256sum </mnt/files/words.txt", "disc")
    sh("cowcloop umount /mnt/files")
    sh("cowcloop mount /payload/images/stick.cloop /data/inner.cow /mnt/files")
    sh("echo written >/mnt/files/new.txt && echo cut >/mnt/files/new.txt")
    sh("cowcloop umount /mnt/files")
    sh("cowcloop mount /payload/images/stick.cloop /data/inner.cow /mnt/files")
    sh("cat /mnt/files/new.txt", "stick")
    sh("cowcloop umount /mnt/files")


def sessions() -> None:
    """Clients of the kernel's, each with a session of its own on one base."""
    sh(f"cowcloop attach {BASE} --sessions /data/class -U /run/class.sock")
    names = ("anna", "ben")
    for number, name in enumerate(names):
        os.makedirs(f"/mnt/{name}")
        sh(f"nbd-client -unix /run/class.sock -N {name} /dev/nbd{number} -b 512")
        sh(f"mount /dev/nbd{number} /mnt/{name}")
        sh(f"echo {name} >/mnt/{name}/whose")
    tell("whose", [sh(f"cat /mnt/{name}/whose").stdout for name in names])
    for number, name in enumerate(names):
        sh(f"umount /mnt/{name} && nbd-client -d /dev/nbd{number}")
    sh("cowcloop detach /run/class.sock", "sessions detached")
    tell("cowfiles", sorted(os.listdir("/data/class")))
    for name in names:
        sh(f"cowcloop extract {BASE} /data/class/{name}.cow /tmp/{name}.raw")
        sh(f"e2fsck -fn /tmp/{name}.raw", f"{name} check")


def killed() -> None:
    """A mount by the kernel's NBD ends with its server, and what waits for that waits no more."""
    sh(f"cowcloop mount --via nbd {BASE} /data/killed.cow /mnt/files")
    Path("/mnt/files/synced").write_text("synced\n")
    (listed,) = json.loads(sh("cowcloop list --json").stdout)
    sh(f"sync -f /mnt/files && sync {listed['device']}")
    Path("/mnt/files/lost").write_text("sent to the server, which does not answer\n")
    os.kill(listed["pid"], signal.SIGSTOP)
    waiting = subprocess.Popen(["sync"])
    sent = Path("/sys/block", Path(listed["device"]).name, "inflight")
    wait_until(lambda: sent.read_text().split()[1] != "0", "a write")
    os.kill(listed["pid"], signal.SIGKILL)
    sh(f"cowcloop recover {listed['device']}", "killed recover")
    sh("cowcloop list", "killed listed")
    unmount = subprocess.Popen(
        ["cowcloop", "umount", "/mnt/files"], stderr=subprocess.PIPE, text=True
    )
    try:
        _, said = unmount.communicate(timeout=5 * PATIENCE)
        tell("killed unmounted", [unmount.returncode, said])
    except subprocess.TimeoutExpired:
        tell("failed: umount", "hangs")
        sh(f"nbd-client -d {listed['device']}")
    waiting.wait()
    sh(f"cowcloop extract {BASE} /data/killed.cow /tmp/killed.raw")
    sh("debugfs -R 'cat synced' /tmp/killed.raw", "killed synced")


def killed_in_the_foreground() -> None:
    """What serve has connected can be connected again."""
    codes = []
    for _ in range(2):
        command = ["cowcloop", "serve", BASE, "/data/served.cow", "--device", "/dev/nbd5"]
        serve = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert serve.stdout is not None
        serve.stdout.readline()
        children = Path(f"/proc/{serve.pid}/task/{serve.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        codes.append([len(children), serve.wait()])
    tell("killed in the foreground", codes)


example()
images()
killed()
killed_in_the_foreground()
sessions()
sh("python3 /payload/demo.py", "demo")
