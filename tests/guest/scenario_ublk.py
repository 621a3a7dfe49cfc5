"""What the guest of test_ublk.py does: block devices by ublk, and servers that die under them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pwd
import shutil
import signal
import termios
import threading
from collections.abc import Callable
from pathlib import Path

from inside import SOME, Daemon, Traffic, digest, sh, tell, wait_until  # type: ignore[import-not-found]

IMAGE = "image=/payload/images/base.cloop"
KILLS = 20

_SECTOR = 512


class Served:
    """A device whose servers are killed. One that ends by itself, since the kernel has taken some
    of its places for those of the server before, is followed by another one too."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.daemon = Daemon("ublk", *words)
        self.device = self.daemon.device
        self.gave_up = 0

    def replace(self) -> None:
        """Kill the server, and start another one."""
        self.daemon.kill()
        self.daemon = Daemon("ublk", self.device, *self._words)

    def look_after(self) -> None:
        """Replace a server that has ended by itself."""
        if self.daemon.process.poll() is not None:
            self.gave_up += 1
            self.replace()

    def wait_until(self, true: Callable[[], object], what: str) -> None:
        """Look after the server until a condition comes about."""

        def looked() -> object:
            self.look_after()
            return true()

        wait_until(looked, what)


def queue(device: str, name: str) -> int:
    """A limit of a block device."""
    return int(Path(f"/sys/block/{os.path.basename(device)}/queue/{name}").read_text())


def control_files() -> list[Path]:
    """Those of all devices that there are; a device may have lost its block device before."""
    return list(Path("/dev").glob("ublkc*"))


def read_only() -> None:
    """A device without a cowfile."""
    daemon = Daemon("ublk", IMAGE)
    tell("read-only whole", digest(daemon.device))
    tell("read-only", sh(f"blockdev --getro {daemon.device}").stdout)
    try:
        with open(daemon.device, "wb", buffering=0) as file:
            file.write(bytes(_SECTOR))
        tell("read-only write", "was let in")
    except OSError as error:
        tell("read-only write", errno.errorcode[error.errno or 0])
    tell("read-only end", daemon.end())
    tell("read-only gone", not os.path.exists(daemon.device))


def limits_and_data() -> None:
    """What the kernel knows of a device; and random requests, with servers that are killed."""
    words = (IMAGE, "cow=/data/traffic.cow", "kept=/run/traffic.kept")
    served = Served(*words)
    device = served.device
    names = ("logical_block_size", "physical_block_size", "optimal_io_size", "fua", "rotational")
    tell("limits", {name: queue(device, name) for name in names})
    tell("discards", queue(device, "discard_max_bytes") > 0)
    tell("zeros", queue(device, "write_zeroes_max_bytes") > 0)
    with open(device, "rb") as file:
        content = bytearray(file.read())
    tell("whole", hashlib.sha256(content).hexdigest())
    traffic = Traffic(device, content, seed=1)
    traffic.start()
    stalls = 0
    for _ in range(KILLS):
        stalls += not traffic.goes_on(served.look_after)
        served.replace()
    while not traffic.goes_on(served.look_after):
        stalls += 1
        served.replace()
    tell("stalls", stalls)
    tell("gave up", served.gave_up)
    tell("traffic", traffic.end())
    sh(f"blockdev --flushbufs {device}")
    tell("traffic whole", digest(device) == hashlib.sha256(content).hexdigest())
    tell("traffic end", served.daemon.end())
    again = Daemon("ublk", *words)
    tell("traffic again", digest(again.device) == hashlib.sha256(content).hexdigest())
    again.end()
    sh("cowcloop info --json /data/traffic.cow", "traffic cowfile")


def file_system() -> None:
    """A mounted file system, which grows, and whose server is killed under a writer."""
    words = (IMAGE, "cow=/data/files.cow", "kept=/run/files.kept", f"size={96 << 20}")
    served = Served(*words)
    device = served.device
    sh(f"e2fsck -fy {device}; resize2fs {device}", "resized")
    sh(f"mount {device} /mnt/files")
    tell("files size", os.statvfs("/mnt/files").f_blocks * os.statvfs("/mnt/files").f_frsize)
    written: list[str] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            path = f"/mnt/files/{len(written)}"
            with open(path, "w", encoding="ascii") as file:
                file.write(f"{len(written)}\n" * 5000)
                file.flush()
                os.fsync(file.fileno())
            written.append(path)

    def some_more(seen: int) -> Callable[[], bool]:
        return lambda: len(written) > seen + 2

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    for _ in range(3):
        served.wait_until(some_more(len(written)), "files")
        served.replace()
    stop.set()
    served.wait_until(lambda: not writer.is_alive(), "the writer")
    sh("fstrim /mnt/files", "trimmed")
    sh("umount /mnt/files")
    sh(f"mount {device} /mnt/files")
    wrong = [p for n, p in enumerate(written) if Path(p).read_text() != f"{n}\n" * 5000]
    tell("files", [len(written) > 6, wrong])
    sh("umount /mnt/files")
    sh(f"e2fsck -fn {device}", "files check")
    tell("files end", served.daemon.end())


def users_own() -> None:
    """A device of a user without privileges, where root lets users have them."""
    uid = pwd.getpwnam("alice").pw_uid
    os.makedirs("/tmp/alice")
    os.chown("/tmp/alice", uid, uid)
    sh(f"setpriv --reuid alice {Daemon.PROGRAM} ublk {IMAGE}", "not let")
    os.chmod("/dev/ublk-control", 0o666)
    ended = threading.Event()

    def give() -> None:
        """What a rule of udev's does."""
        while not ended.wait(0.02):
            for path in Path("/dev").glob("ublk[bc]*"):
                with contextlib.suppress(FileNotFoundError):
                    os.chown(path, uid, uid)

    giver = threading.Thread(target=give, daemon=True)
    giver.start()
    daemon = Daemon("ublk", IMAGE, "cow=/tmp/alice/own.cow", user="alice")
    with open(daemon.device, "rb") as file:
        content = bytearray(file.read())
    tell("own whole", hashlib.sha256(content).hexdigest())
    traffic = Traffic(daemon.device, content, seed=2)
    traffic.start()
    wait_until(lambda: traffic.problem or traffic.done > 2 * SOME, "traffic")
    tell("own traffic", traffic.end())
    tell("own end", daemon.end())
    sh("cowcloop extract /payload/images/base.cloop /tmp/alice/own.cow /tmp/own.raw")
    tell("own again", digest("/tmp/own.raw") == hashlib.sha256(content).hexdigest())
    daemon = Daemon("ublk", IMAGE, user="alice")
    daemon.kill()
    sh(f"setpriv --reuid alice {Daemon.PROGRAM} ublk {daemon.device} {IMAGE}", "own left")
    sh(f"setpriv --reuid alice {Daemon.PROGRAM} remove {daemon.device}", "own removed")
    tell("own removed gone", not control_files())
    words = ("supervise", "ublk", IMAGE, "cow=/tmp/alice/supervised.cow")
    supervisor = Daemon(*words, user="alice")
    pid = supervisor.process.pid
    server = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
    os.kill(int(server), signal.SIGKILL)
    tell("own supervised", supervisor.process.wait())
    tell("own supervised gone", not control_files())
    ended.set()
    giver.join()


def mounted_at_the_end() -> None:
    """A clean end while the file system is still mounted: what was written is on disk."""
    words = (IMAGE, "cow=/data/mounted.cow")
    daemon = Daemon("ublk", *words)
    sh(f"mount {daemon.device} /mnt/files")
    Path("/mnt/files/last").write_text("not synced by its writer\n")
    tell("mounted end", daemon.end())
    sh("umount /mnt/files")
    sh("cowcloop extract /payload/images/base.cloop /data/mounted.cow /tmp/mounted.raw")
    sh("debugfs -R 'cat last' /tmp/mounted.raw", "mounted last")


def unheard() -> None:
    """A supervisor that does not listen: the device is there already by then."""
    sh(f"{Daemon.PROGRAM} ublk {IMAGE} --supervisor=3 3</dev/null", "unheard")
    tell("unheard gone", not control_files())


def something_else() -> None:
    """Servers that would go on with the device of another image, or of another cowfile."""
    shutil.copy("/payload/images/base.cloop", "/tmp/other.cloop")
    # In the script at the beginning: all that tells the images apart.
    sh("printf X | dd of=/tmp/other.cloop bs=1 seek=100 conv=notrunc")
    # A server that takes over makes no cowfile.
    Daemon("ublk", "image=/tmp/other.cloop", "cow=/tmp/other.cow").end()
    Daemon("ublk", IMAGE, "cow=/tmp/another.cow").end()
    for name, cow in (("read-only", ""), ("written", "cow=/data/foreign.cow")):
        daemon = Daemon("ublk", IMAGE, *cow.split())
        daemon.kill()
        go_on = f"{Daemon.PROGRAM} ublk {daemon.device}"
        other = cow and "cow=/tmp/other.cow"
        sh(f"{go_on} image=/tmp/other.cloop {other}", f"{name}: image")
        sh(f"{go_on} {IMAGE} cow=/tmp/another.cow", f"{name}: cowfile")
        sh(f"{go_on} {IMAGE} cow=:memory:", f"{name}: memory")
        sh(f"{go_on} {IMAGE} cow=/tmp/missing.cow", f"{name}: missing")
        sh(f"{Daemon.PROGRAM} remove {daemon.device}", f"{name}: removed")


def left_behind() -> None:
    """A server that is killed for good: the device is removed, and what was flushed stays."""
    words = (IMAGE, "cow=/data/left.cow")
    daemon = Daemon("ublk", *words)
    sh(f"mount {daemon.device} /mnt/files")
    Path("/mnt/files/flushed").write_text("flushed\n")
    # A file system without a journal tells the device to flush before it writes the last of its
    # own blocks; so the device is told once more.
    sh(f"sync -f /mnt/files && sync {daemon.device}")
    sh(f"{Daemon.PROGRAM} ublk /dev/ublkb77 {IMAGE}", "no such device")
    daemon.kill()
    sh(f"{Daemon.PROGRAM} remove {daemon.device}", "removed")
    tell("removed gone", not os.path.exists(daemon.device))
    sh("umount /mnt/files")
    sh("cowcloop extract /payload/images/base.cloop /data/left.cow /tmp/left.raw")
    sh("debugfs -R 'cat flushed' /tmp/left.raw", "left flushed")
    sh("e2fsck -fn /tmp/left.raw", "left check")


def power_cut() -> None:
    """The machine is at its end at once, with the file system mounted and written to."""
    daemon = Daemon("ublk", IMAGE, "cow=/data/cut.cow", "kept=/run/cut.kept")
    sh(f"mount {daemon.device} /mnt/files")
    Path("/mnt/files/synced").write_text("synced\n" * 5000)
    sh(f"sync -f /mnt/files && sync {daemon.device}")
    # Part of this may be on the disk.
    sh("for n in $(seq 20); do cp /mnt/files/synced /mnt/files/$n; done; sync /mnt/files/1")
    tell("cut", [os.path.exists(daemon.device)])
    termios.tcdrain(1)
    Path("/proc/sysrq-trigger").write_text("b")


def commands() -> None:
    """What a user types."""
    base = "/payload/images/base.cloop"
    device = sh(f"cowcloop attach {base} /data/typed.cow --device=ublk", "attached").stdout.strip()
    sh("cowcloop list --json", "listed")
    sh(f"mount {device} /mnt/files && echo typed >/mnt/files/typed")
    sh(f"cowcloop detach {device}", "detached in use")
    sh("umount /mnt/files")
    sh(f"cowcloop sync {device}", "synced")
    sh(f"cowcloop detach {device}", "detached")
    tell("detached gone", not os.path.exists(device))
    sh(f"cowcloop mount {base} /data/typed.cow /mnt/files")
    listed = json.loads(sh("cowcloop list --json").stdout)
    tell("mounted via", [each["via"] for each in listed])
    sh("cat /mnt/files/typed", "typed")
    sh("echo more >/mnt/files/more && cowcloop umount /mnt/files", "unmounted")
    sh(f"cowcloop attach {base} --device ublk --tcp 0", "attached wrongly")
    sh("cowcloop list --json", "listed at last")


def restarts() -> int:
    """How often another server has taken over; -1 while none answers."""
    (listed,) = json.loads(sh("cowcloop list --json").stdout)
    return int(listed.get("restarts", -1))


def taken_over() -> None:
    """A mount whose server is replaced by hand, and the next one killed."""
    sh("cowcloop mount /payload/images/base.cloop /data/taken.cow /mnt/files")
    Path("/mnt/files/first").write_text("of the first server\n")
    sh("cowcloop recover /mnt/files", "recovered")
    (listed,) = json.loads(sh("cowcloop list --json").stdout)
    os.kill(listed["pid"], signal.SIGKILL)
    Path("/mnt/files/third").write_text(Path("/mnt/files/first").read_text())
    sh("sync -f /mnt/files", "taken over sync")
    wait_until(lambda: restarts() == 2, "the third server")
    sh("echo 3 >/proc/sys/vm/drop_caches; cat /mnt/files/third", "taken over")
    sh("cowcloop umount /mnt/files", "taken over end")
    sh("cowcloop info --json /data/taken.cow", "taken over cowfile")


sh(f"{Daemon.PROGRAM} ublk {IMAGE}", "no module")
os.makedirs("/mnt/files")
commands()
taken_over()
read_only()
limits_and_data()
file_system()
users_own()
# Up to here neither the driver nor a file system has anything to say.
sh("dmesg --level=err,crit,alert,emerg", "kernel")
mounted_at_the_end()
unheard()
something_else()
left_behind()
power_cut()
