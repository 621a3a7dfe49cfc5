"""What the scripts of an initramfs decide, without a machine: busybox runs their functions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.guest.initramfs import busybox
from support.programs import ROOT, missing, program, run

KIB = 1024


class Scripts:
    """root.sh and places.sh, with /proc, /sys and the console in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        for name in ("home", "proc", "sys", "scripts"):
            (folder / name).mkdir()
        self.busybox = folder / "busybox"
        self.busybox.write_bytes(busybox().read_bytes())
        self.busybox.chmod(0o755)
        for name in ("root.sh", "places.sh"):
            text = (ROOT / "contrib/boot" / name).read_text()
            for old, new in (
                ("/usr/lib/cowcloop/", f"{folder}/scripts/"),
                ("/proc/", f"{folder}/proc/"),
                ("/sys/", f"{folder}/sys/"),
                ("/dev/console", f"{folder}/console"),
                # /dev/null stands in for a device.
                ("[ -b ", "[ -c "),
            ):
                text = text.replace(old, new)
            (folder / "scripts" / name).write_text(text)
        self.write("proc/uptime", "100.25 90.00\n")
        self.write("proc/meminfo", "MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n")

    def write(self, name: str, text: str) -> None:
        """A file in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, script: str) -> list[str]:
        """The lines that a script prints which calls the functions; others it may replace."""
        begin = f". {self.folder}/scripts/root.sh\ncowcloop_home={self.home}\n"
        begin += "modprobe() { :; }\nsleep() { :; }\ncowcloop_configure_network() { :; }\n"
        return run(self.busybox, "sh", "-c", begin + script).stdout.decode().splitlines()


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    """Without a machine."""
    return Scripts(tmp_path)


@pytest.mark.parametrize("place", ["/dev", "/dev/", "/dev//", "/dev/none/a", "/none", ""])
def test_a_place_that_is_no_device(scripts: Scripts, place: str) -> None:
    assert scripts.run(f"cowcloop_place '{place}'; echo $?") == ["1"]


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("/dev/null", ""),
        ("/dev/null/", ""),
        ("/dev/null/a/b", "/a/b"),
        ("LABEL=X", ""),
        ("LABEL=X/", ""),
        ("LABEL=X/a/b", "/a/b"),
    ],
)
def test_a_place_is_a_device_and_a_path(scripts: Scripts, place: str, path: str) -> None:
    script = f'blkid() {{ echo /dev/null; }}; cowcloop_place {place}; echo "$? $device $path"'
    assert scripts.run(script) == [f"0 /dev/null {path}"]


@pytest.mark.parametrize(
    ("cow", "file"), [("medium", "cowcloop.cow"), ("medium/", "cowcloop.cow"), ("medium/a", "a")]
)
def test_a_cowfile_has_a_name(scripts: Scripts, cow: str, file: str) -> None:
    script = f"mount() {{ :; }}; cow={cow} medium=/dev/null; cowcloop_changes; echo $changes"
    assert scripts.run(script) == [f"cow=/medium/{file}"]


def test_patience_is_counted_in_seconds(scripts: Scripts) -> None:
    tries = """
        uptime=100
        slowly() {
            uptime=$((uptime + 10))
            echo "$uptime.50 1.00" >"$folder/proc/uptime"
            echo try
            return 1
        }
        cowcloop_wait it slowly || echo "given up"
    """
    assert scripts.run(f"folder={scripts.folder}\n{tries}") == [*["try"] * 3, "given up"]
    assert (scripts.folder / "console").read_text() == "cowcloop: waiting for it\n"


TRY = 'cowcloop_parse "$words"; cowcloop_try; echo "$? $problem"'


@pytest.mark.parametrize(
    "option", ["verity=sha256:0", "toram", "cow=LABEL=X", "cow=none", "via=fuse", "trace=/a"]
)
def test_nbd_refuses_what_is_the_servers(scripts: Scripts, option: str) -> None:
    (said,) = scripts.run(f"chroot() {{ :; }}\nwords=nbd://pc/a,boot-id,{option}\n{TRY}")
    assert said == f"1 {option}: not with nbd://pc/a, whose server has the image and the cowfile"


def test_a_trace_beside_no_medium_is_refused(scripts: Scripts) -> None:
    (said,) = scripts.run(f"words=http://pc/a,trace=/b\n{TRY}")
    assert said.startswith("1 trace=/b: http://pc/a is on no medium"), said


@pytest.mark.parametrize("machine", ["", "a/b", "a&", "a b", "\\n"])
def test_a_machines_name_that_is_none(scripts: Scripts, machine: str) -> None:
    functions = f"hostname() {{ echo '{machine}'; }}; chroot() {{ echo \"$@\" >&2; }}\n"
    (said,) = scripts.run(f"{functions}words=nbd://pc/x-%h\n{TRY}")
    assert said.startswith("1 nbd://pc/x-%h: the machine's name cannot stand for %h"), said


def test_an_address_that_is_missing(scripts: Scripts) -> None:
    (said,) = scripts.run(f"chroot() {{ :; }}\nwords=nbd://pc/x-%m\n{TRY}")
    assert said == "1 nbd://pc/x-%m: no network card has an address that could stand for %m"


def test_the_name_of_a_session(scripts: Scripts) -> None:
    scripts.write("sys/class/net/eth0/address", "52:54:00:12:34:56\n")
    told = scripts.folder / "told"
    functions = f'hostname() {{ echo pc-7.lab; }}; chroot() {{ echo "$@" >{told}; }}\n'
    scripts.run(f"{functions}words=nbd://server:7/%h_%m\n{TRY}")
    assert " server 7 -N pc-7.lab_52-54-00-12-34-56 " in told.read_text()


def _copy(scripts: Scripts, words: str) -> list[str]:
    script = f"""
        umount() {{ :; }}
        cowcloop_parse LABEL=X/a/root.cloop,toram{words}
        served=/medium/a/root.cloop
        cowcloop_copy
        echo "$? $problem"
        echo "$served$more"
    """
    return scripts.run(script)


def test_what_does_not_fit_into_memory_is_not_copied(scripts: Scripts) -> None:
    scripts.write("home/medium/a/root.cloop", "x" * 300 * KIB)
    scripts.write("home/medium/a/root.cloop.verity", "x" * 200 * KIB)
    assert _copy(scripts, "")[0].startswith("1 LABEL=X/a/root.cloop: does not fit into memory")
    assert not (scripts.home / "ram").exists()
    (scripts.home / "medium/a/root.cloop.verity").write_text("tree")
    assert _copy(scripts, "")[1] == "/ram/root.cloop"
    assert (scripts.home / "ram/root.cloop").stat().st_size == 300 * KIB
    assert (scripts.home / "ram/root.cloop.verity").read_text() == "tree"


def test_a_trace_is_copied_with_the_image(scripts: Scripts) -> None:
    scripts.write("home/medium/a/root.cloop", "image")
    assert _copy(scripts, ",trace=/b")[0] == "1 LABEL=X/a/root.cloop: the medium has no file /b"
    scripts.write("home/medium/b", "trace")
    served, trace = _copy(scripts, ",trace=/b")[1].split(" trace=")
    assert (scripts.home / served[1:]).read_text() == "image"
    assert (scripts.home / trace[1:]).read_text() == "trace"


def test_a_daemon_that_cannot_be_started_ends_the_wait(scripts: Scripts) -> None:
    script = """
        chroot() { return 127; }
        cowcloop_parse LABEL=X/a
        cowcloop_serve
        echo "$? $problem"
    """
    assert scripts.run(script) == ["1 LABEL=X/a: cannot be served"]


def test_another_try_finds_nothing_mounted(scripts: Scripts) -> None:
    script = 'umount() { echo "$1"; }; root="" daemon=""; cowcloop_undo'
    places = [str(scripts.home / name) for name in ("fuse", "iso", "medium", "cow")]
    assert scripts.run(script) == places


@pytest.mark.parametrize(
    ("words", "read_only", "checked"), [("", 0, True), ("", 1, False), (",cow=none", 0, False)]
)
def test_a_root_that_can_be_written_is_checked_before_it_is_mounted(
    scripts: Scripts, words: str, read_only: int, checked: bool
) -> None:
    scripts.write("sys/block/ublkb0/ro", f"{read_only}\n")
    script = f"""
        cowcloop_make_home() {{ :; }}
        cowcloop_try() {{ root=/dev/ublkb0; }}
        blkid() {{ echo ext2; }}
        cowcloop_check() {{ echo "check $*"; }}
        mount() {{ echo "mount $*"; }}
        cowcloop_root LABEL=X/a{words} /root -w
    """
    check = ["check /dev/ublkb0 ext2"] if checked else []
    assert scripts.run(script) == [*check, "mount -t ext2 -w /dev/ublkb0 /root"]


SHUTDOWN = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir -p "$1/bin" "$1/proc" "$1/dev" "$1/medium" "$1/cow" "$1/run/initramfs/cow" "$1/oldroot"
cp "$2" "$1/bin/busybox"
cp "$3" "$1/shutdown"
mount --rbind /proc "$1/proc"
mount -t tmpfs old "$1/oldroot"
mkdir "$1/oldroot/a b" "$1/oldroot/a b/c" "$1/oldroot/dev" "$1/early"
mount -t tmpfs blank "$1/oldroot/a b"
# What an initramfs has mounted is older than the root that it is moved to.
mount -t tmpfs early "$1/early"
mkdir "$1/early/on" "$1/oldroot/on"
mount -t tmpfs late "$1/oldroot/on"
mkdir "$1/oldroot/on/dev"
mount --make-rprivate "$1"
mount --move "$1/early" "$1/oldroot/on/dev"
for place in medium cow run/initramfs/cow; do mount -t tmpfs "$place" "$1/$place"; done
# In a namespace of its own a reboot is the end of that and of nothing else.
unshare --pid --fork chroot "$1" /bin/busybox sh /shutdown reboot || true
exec cat /proc/mounts
"""


def test_at_the_end_all_is_unmounted(tmp_path: Path) -> None:
    shell = Scripts(tmp_path).busybox
    place = tmp_path / "root"
    place.mkdir()
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    tried = run(*unshare, "unshare", "--pid", "--fork", "mount", "--bind", "/", "/", expect=None)
    if tried.returncode:
        missing(f"no namespaces: {tried.stderr.decode().strip()}")
    words = ("sh", "-c", SHUTDOWN, "sh", place, shell, ROOT / "contrib/boot/shutdown")
    # Other mounts of this machine may have any names.
    mounts = run(*unshare, *words).stdout.decode(errors="replace")
    own = [line.split()[1] for line in mounts.splitlines() if f" {place}" in line]
    assert [name for name in own if not name.startswith(f"{place}/proc")] == [str(place)]


@pytest.mark.parametrize(
    ("settings", "exported", "says"),
    [
        ('COWCLOOP="n"\n', "y", ""),
        ("COWCLOOP=y\nCOWCLOOP=n\n", "y", ""),
        ("", "n", "BUSYBOX=n"),
    ],
)
def test_a_hook_that_leaves_all_of_it_out(
    tmp_path: Path, settings: str, exported: str, says: str
) -> None:
    program("mkinitramfs", "initramfs-tools-core")
    configuration, made = tmp_path / "etc", tmp_path / "made"
    (configuration / "conf.d").mkdir(parents=True)
    made.mkdir()
    (configuration / "initramfs.conf").write_text("MODULES=most\n")
    (configuration / "conf.d/own").write_text(settings)
    env = {"CONFDIR": str(configuration), "DESTDIR": str(made), "BUSYBOX": exported}
    done = run("sh", ROOT / "contrib/initramfs-tools/hooks/cowcloop", env={**env, "verbose": "n"})
    assert says in done.stderr.decode()
    assert list(made.iterdir()) == []
