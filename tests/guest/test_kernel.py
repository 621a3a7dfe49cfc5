"""The kernel's own drivers over a served device: nbd, iso9660 and vfat, in the stock kernel."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cowcloop.server.command import plugin_path
from support.guest import Initramfs, boot
from support.programs import cowcloop, program, run

WORDS = b"the words on the disc\n" * 3000

# Serves what lies in /images, with a cowfile in the guest's memory, as /dev/nbd0.
_SERVE = """
serve() {
    rm -f /run/$1
    /programs/nbdkit -f -U /run/$1 --log=stderr /plugin.so image=/images/$1 cow=/run/$1.cow &
    server=$!
    while [ ! -S /run/$1 ]; do sleep 0.1; done
    /programs/nbd-client -unix /run/$1 /dev/nbd0 -b 512 >/dev/null
}
end() {
    /programs/nbd-client -d /dev/nbd0 >/dev/null
    kill $server
    wait $server
    echo "server $?" >/dev/ttyS1
}
mkdir -p /mnt
"""

_SCRIPT = (
    _SERVE
    + """
serve disc
mount -t iso9660 -o ro /dev/nbd0 /mnt
sha256sum </mnt/words.txt >/dev/ttyS1
cp /mnt/words.txt /run/
umount /mnt
end
serve stick
mount -t vfat /dev/nbd0 /mnt
cp /run/words.txt /mnt/
echo written >/mnt/new.txt
echo cut >/mnt/new.txt
umount /mnt
end
serve stick
mount -t vfat -o ro /dev/nbd0 /mnt
cat /mnt/new.txt >/dev/ttyS1
sha256sum </mnt/words.txt >/dev/ttyS1
umount /mnt
end
"""
)


@pytest.fixture
def iso9660(tmp_path: Path) -> Path:
    """A compressed disc."""
    folder = tmp_path / "disc"
    folder.mkdir()
    (folder / "words.txt").write_bytes(WORDS)
    disc = tmp_path / "disc.iso"
    run(program("genisoimage", "genisoimage"), "-quiet", "-r", "-o", disc, folder)
    cowcloop("create", disc, tmp_path / "disc.cloop")
    return tmp_path / "disc.cloop"


@pytest.fixture
def vfat(tmp_path: Path) -> Path:
    """A compressed stick, with nothing on it."""
    stick = tmp_path / "stick.raw"
    with stick.open("wb") as file:
        file.truncate(4 << 20)
    run(program("mkfs.vfat", "dosfstools"), stick)
    cowcloop("create", stick, tmp_path / "stick.cloop")
    return tmp_path / "stick.cloop"


def test_the_kernel_mounts_what_it_reads_through_nbd(
    tmp_path: Path, iso9660: Path, vfat: Path
) -> None:
    archive = Initramfs()
    archive.add_program(program("nbdkit", "nbdkit"), "/programs/nbdkit")
    archive.add_program(program("nbd-client", "nbd-client"), "/programs/nbd-client")
    archive.add_program(plugin_path(), "/plugin.so")
    archive.add("/images/disc", iso9660.read_bytes())
    archive.add("/images/stick", vfat.read_bytes())
    modules = ("nbd", "isofs", "vfat", "nls_cp437", "nls_ascii")
    done = boot(archive.save(tmp_path / "initramfs", _SCRIPT, modules))
    digest = f"{hashlib.sha256(WORDS).hexdigest()}  -"
    expected = [digest, "server 0", "server 0", "cut", digest, "server 0"]
    assert done.results.splitlines() == expected, done.console
