"""What bootable ISO images are made of and by: for `cowcloop live`."""

from __future__ import annotations

from pathlib import Path

from support.programs import missing, program

#: They stand in for a kernel and an initramfs.
KERNEL = b"a kernel" * 4001
INITRD = b"an initramfs" * 5003
#: The newer one of the tree's.
VERSION = "6.12.3-amd64"


def require_grub() -> None:
    """The test needs the programs that make an ISO image."""
    program("grub-mkrescue", "grub-common")
    program("xorriso", "xorriso")
    program("mformat", "mtools")
    for name, package in (("i386-pc", "grub-pc-bin"), ("x86_64-efi", "grub-efi-amd64-bin")):
        if not Path("/usr/lib/grub", name).exists():
            missing(f"/usr/lib/grub/{name} is not installed (Debian package {package})")


def make_tree(folder: Path) -> Path:
    """A small root directory with kernels of two versions, and no initramfs."""
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/motd").write_text("hello\n")
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz-6.9.1-amd64").write_bytes(b"old")
    (tree / f"boot/vmlinuz-{VERSION}").write_bytes(KERNEL)
    return tree


def make_initrd(folder: Path) -> Path:
    """Any."""
    path = folder / "initrd.img"
    path.write_bytes(INITRD)
    return path
