"""What the guest of test_media.py does: media that the kernel mounts, and many sessions."""

from __future__ import annotations

import os

from inside import sh, tell  # type: ignore[import-not-found]

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


example()
images()
sessions()
sh("python3 /payload/demo.py", "demo")
