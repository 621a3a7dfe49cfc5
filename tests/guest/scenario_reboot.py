"""What the guest of test_systemd.py does, as root, once it is up. It prints JSON lines.

Each of its devices has its cowfile on /data, a file system of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from inside import Traffic, digest, sh, tell, wait_for  # type: ignore[import-not-found]
from inside_nbd import KernelNbd  # type: ignore[import-not-found]

# A program that keeps a file system busy as long as its session lives, and writes then.
LAST_WORDS = (
    "cd {folder}; trap 'echo last words >new.txt; exit' TERM HUP;"
    " echo working >new.txt; touch ~/here; while :; do sleep 0.2; done"
)
BASE = "/payload/images/base.cloop"
KILLS = 2


def session(user: str, command: str, *, stays: bool = False) -> None:
    """A command in a login session, which ends with it, or `stays`."""
    waiting = "" if stays else "--wait --pipe"
    login = f"systemd-run --quiet --property=PAMName=login --property=User={user}"
    sh(f"{login} {waiting} sh -c {json.dumps(command)}")


def killed(device: KernelNbd, server: Callable[[], int]) -> None:
    """Kill the server of a unit under a client that reconnects; nothing of it is flushed."""
    with open(device.device, "rb") as file:
        content = bytearray(file.read())
    traffic = Traffic(device.device, content, seed=3)
    traffic.start()

    def goes_on() -> bool:
        # The kernel sends again what the dead server had not answered, in its own time.
        return any(traffic.goes_on(lambda: None) for _ in range(5))

    stalls = 0
    for _ in range(KILLS):
        stalls += not goes_on()
        os.kill(server(), signal.SIGKILL)
        device.reconnect()
    stalls += not goes_on()
    tell("unit killed", [stalls, traffic.end()])
    sh(f"blockdev --flushbufs {device.device}")
    tell("unit killed whole", digest(device.device) == hashlib.sha256(content).hexdigest())


def unit_is_killed() -> None:
    """systemd starts another server, which has all that was acknowledged."""

    def server() -> int:
        main = sh("systemctl show -p MainPID --value cowcloop@chicken").stdout.strip()
        return int(Path(f"/proc/{main}/task/{main}/children").read_text())

    device = KernelNbd(7, "/run/cowcloop-chicken/nbd.sock")
    killed(device, server)
    device.disconnect()
    sh("systemctl show -p NRestarts --value cowcloop@chicken", "unit restarts")


def units() -> None:
    """The units of contrib/systemd."""
    os.makedirs("/srv/cowcloop")
    shutil.copy(BASE, "/srv/cowcloop/chicken.cloop")
    for path in Path("/payload/units").iterdir():
        shutil.copy(path, "/etc/systemd/system")
    plugins = next(Path("/usr/lib").glob("*/nbdkit/plugins"))
    name = "nbdkit-cowcloop-plugin.so"
    (plugins / name).symlink_to(f"/payload/{name}")
    sh("systemctl daemon-reload")
    uri = "nbd+unix:///?socket=/run/cowcloop-chicken/nbd.sock"
    sh(f"systemctl start cowcloop@chicken && nbdinfo --size '{uri}'", "unit")
    sh("systemctl start cowcloop@absent", "absent image")
    sh("journalctl --no-pager -q -o cat -u 'cowcloop@*'", "journal")
    sh("systemctl show -p StatusText --value cowcloop@chicken", "unit status")
    sh("cowcloop list --json", "unit listed")
    sh(f"cowcloop sync '{uri}'", "unit synced")
    sh(f"cowcloop cow snapshot '{uri}' /var/lib/cowcloop/chicken/monday.cow", "unit snapshot")
    sh(f"cowcloop cow snapshot '{uri}' /root/monday.cow", "unit snapshot elsewhere")
    unit_is_killed()
    sh("cowcloop detach --all && systemctl is-active cowcloop@chicken", "unit after detach --all")
    sh(f"cowcloop detach '{uri}'", "unit detached")
    sh("sleep 2; systemctl show -p ActiveState -p Result cowcloop@chicken", "unit after detach")
    sh("systemctl start cowcloop-activated.socket")
    sh("nbdinfo --size 'nbd+unix:///?socket=/run/cowcloop-activated.sock'", "activated")
    # It is served again while the system goes down.
    sh("systemctl start cowcloop@chicken", "unit again")


def mounts() -> None:
    """Devices that are in use when the system goes down."""
    os.makedirs("/data/alice")
    shutil.chown("/data/alice", "alice", "alice")
    for name in ("mounted", "looped", "attached", "by-hand", "disc"):
        os.makedirs(f"/mnt/{name}")
    session("root", f"cowcloop mount --via nbd {BASE} /data/mounted.cow /mnt/mounted")
    session("root", f"cowcloop attach {BASE} /data/attached.cow --device /dev/nbd8")
    sh("mount /dev/nbd8 /mnt/attached")
    session("root", f"cowcloop mount --via fuse {BASE} /data/looped.cow /mnt/looped")
    # Whose client is not known.
    session("root", f"cowcloop attach {BASE} /data/by-hand.cow -U /run/by-hand")
    sh("nbd-client -unix /run/by-hand /dev/nbd9 -b 512 && mount /dev/nbd9 /mnt/by-hand")
    session(
        "alice",
        f"mkdir ~/mnt; cowcloop mount {BASE} /data/alice/user.cow ~/mnt 2>~/errors;"
        f" {LAST_WORDS.format(folder='~/mnt')}",
        stays=True,
    )
    for folder in ("/mnt/mounted", "/mnt/looped", "/mnt/attached"):
        session("root", LAST_WORDS.format(folder=folder), stays=True)
        wait_for(f"{folder}/new.txt")
    wait_for("/home/alice/here")
    tell("alice", Path("/home/alice/errors").read_text())
    sh("cowcloop mount --via nbd /payload/images/disc.cloop /mnt/disc && ls /mnt/disc", "disc")
    sh("cowcloop list --json", "listed")
    sh("systemctl list-units --no-legend --plain 'cowcloop-*' '*nbd8*'", "systemd's units")


units()
mounts()
# It is not synced; but systemctl may sync all that there is.
Path("/mnt/by-hand/new.txt").write_text("written through a client of one's own\n")
sh("systemctl reboot")
