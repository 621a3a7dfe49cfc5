"""`cowcloop live`: what is in the ISO image; tests/guest sees it boot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bootable import INITRD, KERNEL
from support.programs import cowcloop, program, refused, run

ROOT = "live/root.cloop"


def inside(iso: Path, name: str) -> bytes:
    """A file of the ISO image, as our own reader finds it; of an image, its device."""
    return cowcloop("extract", f"{iso}:/{name}", "-").stdout


def motd(raw: Path) -> bytes:
    """A file in the file system of a device."""
    return run(program("debugfs", "e2fsprogs"), "-R", "cat etc/motd", raw).stdout


def report(iso: Path, *command: str) -> str:
    """What xorriso says of an ISO image."""
    return run(program("xorriso", "xorriso"), "-indev", iso, *command).stdout.decode()


def test_a_directory_becomes_an_iso_image(tree: Path, initrd: Path, tmp_path: Path) -> None:
    iso, raw = tmp_path / "live.iso", tmp_path / "raw"
    words = ("--label", "My-CD_1", "--cow", "LABEL=changes/my.cow", "--append", "quiet 'x=a b'")
    options = (*words, "--initrd", initrd, "--free", "32M", "--level", "1", "--block-size", "32K")
    done = json.loads(cowcloop("live", tree, iso, *options, "--json").stdout)
    command_line = (
        "boot=cowcloop root=cowcloop:LABEL=My-CD_1/live/root.cloop,cow=LABEL=changes/my.cow "
        "rw noresume quiet x=a b"
    )
    info = json.loads(cowcloop("info", f"{iso}:/{ROOT}", "--json").stdout)
    assert done == {
        "path": str(iso),
        "size": iso.stat().st_size,
        "image_size": info["file_size"],
        "label": "My-CD_1",
        "command_line": command_line,
    }
    assert (inside(iso, "live/vmlinuz"), inside(iso, "live/initrd")) == (KERNEL, INITRD)
    menu = inside(iso, "boot/grub/grub.cfg").decode()
    assert f"linux /live/vmlinuz {command_line.replace('x=a b', repr('x=a b'))}\n" in menu
    assert info["block_size"] == 32768
    assert info["size"] > 32 << 20
    cowcloop("extract", f"{iso}:/{ROOT}", raw)
    run(program("e2fsck", "e2fsprogs"), "-fn", raw)
    assert motd(raw) == b"hello\n"
    # Both firmwares find what they look for, on a disc and on a stick.
    boot = report(iso, "-report_el_torito", "plain", "-report_system_area", "plain")
    assert "BIOS  y   none" in boot
    assert "UEFI  y   none" in boot
    assert "grub2-mbr" in boot
    # On a stick, one file system has the label.
    assert "EFI boot partition" in boot
    assert "HFSPLUS" not in boot
    assert report(iso, "-pvd_info").count("My-CD_1") == 1


def test_the_image_has_room(tree: Path, initrd: Path, tmp_path: Path) -> None:
    iso, raw = tmp_path / "live.iso", tmp_path / "raw"
    free = []
    for size in ("0", "64M"):
        cowcloop("live", tree, iso, "--initrd", initrd, "--free", size)
        cowcloop("extract", f"{iso}:/{ROOT}", raw)
        head = run(program("dumpe2fs", "e2fsprogs"), "-h", raw).stdout.decode()
        fields = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
        assert fields["Block size"].strip() == "4096"
        free.append((int(fields["Free blocks"]), int(fields["Free inodes"])))
    assert free[1][0] - free[0][0] >= (64 << 20) // 4096
    assert free[1][1] - free[0][1] >= 4096


def test_the_remaster_cycle(tree: Path, initrd: Path, tmp_path: Path) -> None:
    """The kernel and the initramfs come along; unchanged blocks keep their bytes."""
    first, second, third = (tmp_path / f"{name}.iso" for name in ("first", "second", "third"))
    cowcloop("live", tree, first, "--initrd", initrd, "--free", "0")
    cow, raw = tmp_path / "changes.cow", tmp_path / "raw"
    cowcloop("extract", f"{first}:/{ROOT}", raw)
    (tmp_path / "motd").write_text("changed\n")
    debugfs = program("debugfs", "e2fsprogs")
    run(debugfs, "-w", "-R", "rm etc/motd", raw)
    run(debugfs, "-w", "-R", f"write {tmp_path / 'motd'} etc/motd", raw)
    changed = raw.rename(tmp_path / "changed")
    write_over(f"{first}:/{ROOT}", cow, changed)
    cowcloop("live", f"{first}:/{ROOT}", cow, second, "--label", "SECOND")
    for name, data in (("vmlinuz", KERNEL), ("initrd", INITRD)):
        assert inside(second, f"live/{name}") == data
    assert b"LABEL=SECOND/" in inside(second, "boot/grub/grub.cfg")
    cowcloop("extract", f"{second}:/{ROOT}", raw)
    assert raw.read_bytes() == changed.read_bytes()
    # And from the second one, without changes.
    cowcloop("live", f"{second}:/{ROOT}", third, "--kernel", initrd)
    assert inside(third, ROOT) == inside(second, ROOT)
    assert inside(third, "live/vmlinuz") == INITRD


def write_over(image: str, cow: Path, wanted: Path) -> None:
    """Changes until the device is as wanted."""
    import cowcloop as package

    with package.open(image, cow) as disk, wanted.open("rb") as file:
        for at in range(0, disk.size, 4096):
            data = file.read(4096)
            if disk.pread(len(data), at) != data:
                disk.pwrite(data, at)


def test_an_image_of_any_kind(chicken: Path, ext2: Path, initrd: Path, tmp_path: Path) -> None:
    iso = tmp_path / "live.iso"
    for image in (chicken, ext2):
        cowcloop("live", image, iso, "--kernel", initrd, "--initrd", initrd, "--quiet")
        info = json.loads(cowcloop("info", f"{iso}:/{ROOT}", "--json").stdout)
        assert info["file_size"] < ext2.stat().st_size
        assert inside(iso, ROOT).startswith(ext2.read_bytes())


def test_what_cannot_become_one(tree: Path, chicken: Path, initrd: Path, tmp_path: Path) -> None:
    out = tmp_path / "live.iso"
    refused("live", tree, out, "--kernel", tmp_path / "none", says=("none", "no such file"))
    refused("live", chicken, out, says=("chicken.img", "--kernel and --initrd"))
    refused("live", tree, chicken, out, "--initrd", initrd, says=("chicken.img", "leave it out"))
    refused("live", tree, initrd, "--initrd", initrd, says=("initrd.img", "one of the inputs"))
    refused("live", tree, tree / "x.iso", "--initrd", initrd, says=("is in", "to be read"))
    (tree / "boot").rename(tree / "no-boot")
    refused("live", tree, out, says=("tree", "vmlinuz-VERSION", "--kernel"))
    assert initrd.read_bytes() == INITRD
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--label", "a/b"), "label"),
        (("--label", "x" * 33), "32"),
        (("--cow", "somewhere"), "ram:SIZE"),
        (("--cow", "LABEL=a,toram"), "LABEL=X"),
        (("--append", "a'b"), "quote"),
        (("--append", 'a=\\"b'), "quotes"),
        (("--append", "a\nb\x1b"), "control"),
        (("--append", "x" * 2048), "2047"),
    ],
)
def test_options_that_the_boot_could_not_take(
    tree: Path, tmp_path: Path, words: tuple[str, str], says: str
) -> None:
    done = cowcloop("live", tree, tmp_path / "live.iso", *words, expect=2)
    line = done.stderr.decode()
    assert line.count("\n") == 1
    assert says in line


def test_missing_tools_are_named_at_once(tree: Path, initrd: Path, tmp_path: Path) -> None:
    line = refused(
        "live", tree, tmp_path / "live.iso", "--initrd", initrd, env={"PATH": str(tmp_path)}
    )
    # Whatever lies beside the administrator's programs is found all the same.
    assert "grub-mkrescue, xorriso and mformat are not installed" in line
    assert line.endswith("grub-common xorriso mtools")


def test_an_older_file_is_replaced_whole_or_not_at_all(
    tree: Path, chicken: Path, initrd: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_bytes(chicken.read_bytes())
    words = ("live", tree, out, "--initrd", initrd, "--free", "0")
    refused(*words, says=("out", "--force"))
    assert out.read_bytes() == chicken.read_bytes()
    cowcloop(*words, "--force")
    assert inside(out, "live/initrd") == INITRD
    cowcloop(*words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["initrd.img", "out", "tree"]
