#!/usr/bin/env python3
"""Runs as the first process of the User Mode Linux guest: measures, writes a file, powers off.

The guest's root is the host's own, so it has all its programs; nothing but the result is written
there. Only the standard library is used: this is the distribution's Python.
"""

from __future__ import annotations

import json
import mmap
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_FOLDER = Path("/mnt")


def sh(command: str, **options: Any) -> str:
    """Run a shell command; its standard error comes with the exception."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.returncode}: {done.stderr.strip()[-500:]}")
    return str(done.stdout)


def mount_all(job: dict[str, Any]) -> None:
    """The usual file systems, and the images in memory."""
    sh("mount -t proc proc /proc && mount -t sysfs sys /sys")
    sh("mountpoint -q /dev || mount -t devtmpfs dev /dev")
    for folder, size in (("/mnt", "2500m"), ("/run", "16m")):
        sh(f"mount -t tmpfs -o size={size} lab {folder}")
    sh("test -e /dev/fd || ln -s /proc/self/fd /dev/fd")
    for name in ("image", "raw", "squashfs"):
        sh(f"cp {job[name]} {_FOLDER}/base.{name}")
    sh("mkdir /mnt/squashfs")
    touch_memory()


def touch_memory() -> None:
    """Use most of the guest's memory once: the host is slow to provide it at the first use."""
    words = Path("/proc/meminfo").read_text().split()
    free = int(words[words.index("MemAvailable:") + 1]) >> 10
    sh(f"head -c {free * 3 // 4}M /dev/zero > /mnt/zeros && rm /mnt/zeros")


class Device(NamedTuple):
    """One way to the data: a context manager that gives the path at which it appears."""

    name: str
    path: str
    open: Callable[[], AbstractContextManager[None]]


@contextmanager
def cloop(module: str) -> Iterator[None]:
    """The kernel module."""
    sh(f"insmod {module} file={_FOLDER}/base.image")
    try:
        yield
    finally:
        sh("rmmod cloop")


@contextmanager
def snapshot(module: str) -> Iterator[None]:
    """dm-snapshot over the kernel module, its own store in memory."""
    with cloop(module):
        sh("truncate -s 64M /mnt/store && losetup /dev/loop2 /mnt/store")
        sectors = sh("blockdev --getsz /dev/cloop0").strip()
        table = f"0 {sectors} snapshot /dev/cloop0 /dev/loop2 N 8"
        sh(f"dmsetup create --noudevsync --noudevrules lab --table '{table}'")
        try:
            yield
        finally:
            sh("dmsetup remove --noudevsync --noudevrules lab; losetup -d /dev/loop2")
            sh("rm /mnt/store")


@contextmanager
def squashfs() -> Iterator[None]:
    """The raw image as a file in squashfs."""
    sh("mount -t squashfs -o loop,ro /mnt/base.squashfs /mnt/squashfs")
    try:
        yield
    finally:
        sh("umount /mnt/squashfs")


@contextmanager
def loop() -> Iterator[None]:
    """The raw image through the loop driver: the most that the guest can do."""
    sh("losetup -r /dev/loop1 /mnt/base.raw")
    try:
        yield
    finally:
        sh("losetup -d /dev/loop1")


@contextmanager
def served(command: list[str], device: str) -> Iterator[None]:
    """cowcloop in the guest, which makes or connects the device by its own option."""
    words = [*command, "--device", device]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            # Its address, once the device can be read.
            if server.stdout is None or not server.stdout.readline():
                raise RuntimeError(f"{words}: no server")
            yield
        finally:
            server.terminate()


@contextmanager
def nbd(command: list[str]) -> Iterator[None]:
    """Another server in the guest, and the kernel's NBD client on it."""
    socket = Path("/mnt/nbd.sock")
    log = Path("/mnt/server.log")
    with log.open("wb") as errors:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        until = time.monotonic() + 120
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]}: no server: {log.read_text()[-500:]}")
            time.sleep(0.05)
        sh(f"nbd-client -unix {socket} /dev/nbd0 -b 4096")
        try:
            yield
        finally:
            sh("nbd-client -d /dev/nbd0")
    finally:
        server.terminate()
        server.wait()
        socket.unlink(missing_ok=True)


def drop_caches() -> None:
    """Nothing of a device in the page cache; the images in tmpfs stay."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def dd(device: str, job: dict[str, Any], options: str) -> float:
    """MB/s of the whole device."""
    drop_caches()
    begin = time.monotonic()
    sh(f"dd if={device} of=/dev/null {options}")
    return float(job["size"] / 1e6 / (time.monotonic() - begin))


def random_reads(device: str, job: dict[str, Any], length: int) -> float:
    """Reads per second, one after the other, every block touched once in random order."""
    drop_caches()
    places = job["offsets"]
    flags = os.O_DIRECT if device.startswith("/dev/") else 0
    file = os.open(device, os.O_RDONLY | flags)
    try:
        if not flags:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        with mmap.mmap(-1, length) as buffer:
            begin = time.monotonic()
            for offset in places:
                os.preadv(file, [buffer], offset)
            return float(len(places) / (time.monotonic() - begin))
    finally:
        os.close(file)


def devices(job: dict[str, Any]) -> list[Device]:
    """All contenders that this kernel has."""
    socket = "/mnt/nbd.sock"
    image = f"{_FOLDER}/base.image"
    ours = [*job["cowcloop"], "serve", image]
    if not job["modules"]:
        kernel = f"Linux {os.uname().release}"
        return [
            Device(f"cowcloop, /dev/ublkb0, {kernel}", "/dev/ublkb0", lambda: served(ours, "ublk")),
            Device(
                f"cowcloop, /dev/nbd0, {kernel}", "/dev/nbd0", lambda: served(ours, "/dev/nbd0")
            ),
            Device(f"control: raw image through loop, {kernel}", "/dev/loop1", loop),
        ]
    qemu = ["qemu-nbd", "--persistent", "-r", "-f", "cloop", f"--socket={socket}", image]
    as_it_is, mended = job["modules"]["as it is"], job["modules"]["mended"]
    file = f"/mnt/squashfs/{Path(job['raw']).name}"
    return [
        Device("cowcloop", "/dev/nbd0", lambda: served(ours, "/dev/nbd0")),
        Device("kernel cloop as it is", "/dev/cloop0", lambda: cloop(as_it_is)),
        Device("kernel cloop mended", "/dev/cloop0", lambda: cloop(mended)),
        Device("dm-snapshot over cloop mended", "/dev/dm-0", lambda: snapshot(mended)),
        Device("squashfs", file, squashfs),
        Device("qemu-nbd", "/dev/nbd0", lambda: nbd(qemu)),
        Device("control: raw image through loop", "/dev/loop1", loop),
    ]


def measurements(device: str) -> dict[str, tuple[Any, ...]]:
    """The measurements of a device: work, function and arguments."""
    works: dict[str, tuple[Any, ...]] = {
        "dd bs=1M": (dd, "bs=1M"),
        "dd bs=128K": (dd, "bs=128K"),
    }
    if device.startswith("/dev/"):
        works["dd bs=1M, direct"] = (dd, "bs=1M iflag=direct")
    if not device.startswith("/dev/dm-"):
        works["random 4 KiB, depth 1"] = (random_reads, 4096)
    return works


def measure(job: dict[str, Any]) -> list[dict[str, Any]]:
    """All devices in turn, as many times as wanted."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}

    def row(work: str, name: str) -> dict[str, Any]:
        empty = {"work": work, "contender": name, "figures": [], "unavailable": ""}
        return rows.setdefault((work, name), empty)

    for _ in range(job["runs"]):
        for device in devices(job):
            try:
                for work in measurements_of(device, job, row):
                    print(f"{device.name}: {work}", flush=True)
            except Exception as error:
                traceback.print_exc()
                row("dd bs=1M", device.name)["unavailable"] = str(error)
    for item in rows.values():
        if item["figures"]:
            print(item["contender"], item["work"], statistics.median(item["figures"]), flush=True)
    return list(rows.values())


def measurements_of(
    device: Device, job: dict[str, Any], row: Callable[[str, str], dict[str, Any]]
) -> Iterator[str]:
    """Each measurement with the device made anew, so that nothing is cached from the last."""
    for work, (function, argument) in measurements(device.path).items():
        with device.open():
            figure = function(device.path, job, argument)
        row(work, device.name)["figures"].append(figure)
        yield f"{work}: {figure:.4g}"


def main() -> None:
    """Never returns: the machine is powered off."""
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ.setdefault("HOME", "/root")
    try:
        job = json.loads(Path(os.environ["COWCLOOP_LAB"]).read_text())
        mount_all(job)
        result = json.dumps(measure(job))
        Path(job["result"]).write_text(result)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os.sync()
    subprocess.run(["busybox", "poweroff", "-f"])


if __name__ == "__main__":
    main()
