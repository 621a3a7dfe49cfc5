#!/bin/sh
# install-deps.sh [build|demo|test|bench]: installs the packages that this command of make needs,
# on Debian and Ubuntu. Quick and silent when they are all installed. Without root and sudo it says
# which ones are missing.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

# For each package, the first command that needs it (later ones need it too), and a file that it
# installs: looking for a file takes no time.
packages="
build gcc /usr/bin/gcc
build libc6-dev /usr/include/stdlib.h
build cmake /usr/bin/cmake
build make /usr/bin/make
build nbdkit /usr/bin/nbdkit /usr/sbin/nbdkit

demo libnbd-bin /usr/bin/nbdcopy
demo e2fsprogs /usr/sbin/mke2fs /sbin/mke2fs
demo mount /usr/bin/mount /bin/mount
demo fuse3 /usr/bin/fusermount3 /bin/fusermount3
demo genisoimage /usr/bin/genisoimage

test git /usr/bin/git
test python3-libnbd /usr/lib/python3/dist-packages/nbd.py
test cloop-utils /usr/bin/extract_compressed_fs
test fuse2fs /usr/bin/fuse2fs /usr/sbin/fuse2fs /sbin/fuse2fs
test fdisk /usr/sbin/sfdisk /sbin/sfdisk
test dosfstools /usr/sbin/mkfs.vfat /sbin/mkfs.vfat
test xfsprogs /usr/sbin/mkfs.xfs /sbin/mkfs.xfs
test exfatprogs /usr/sbin/mkfs.exfat /sbin/mkfs.exfat
test exfat-fuse /usr/sbin/mount.exfat-fuse /sbin/mount.exfat-fuse
test fusefat /usr/bin/fusefat
test nginx-light /usr/sbin/nginx
test python3-swift /usr/lib/python3/dist-packages/swift/proxy/server.py
test openssl /usr/bin/openssl
test nbd-client /usr/sbin/nbd-client /sbin/nbd-client
test qemu-utils /usr/bin/qemu-io
test fio /usr/bin/fio
test lzop /usr/bin/lzop
test fsverity /usr/bin/fsverity
test grub-common /usr/bin/grub-mkrescue
test grub-pc-bin /usr/lib/grub/i386-pc
test grub-efi-amd64-bin /usr/lib/grub/x86_64-efi
test xorriso /usr/bin/xorriso
test mtools /usr/bin/mformat
test initramfs-tools-core /usr/bin/lsinitramfs
test cpio /usr/bin/cpio
test curl /usr/bin/curl
test shellcheck /usr/bin/shellcheck
test strace /usr/bin/strace
test debootstrap /usr/sbin/debootstrap
test iproute2 /usr/bin/ip /bin/ip
test dnsmasq-base /usr/sbin/dnsmasq
test ipxe /usr/lib/ipxe/snponly.efi
test pxelinux /usr/lib/PXELINUX/pxelinux.0
test syslinux-common /usr/lib/syslinux/modules/bios/ldlinux.c32
test zisofs-tools /usr/bin/mkzftree
test squashfs-tools /usr/bin/mksquashfs
test btrfs-progs /usr/bin/mkfs.btrfs /usr/sbin/mkfs.btrfs /sbin/mkfs.btrfs
test xz-utils /usr/bin/xz
test man-db /usr/bin/man
test zsh /usr/bin/zsh /bin/zsh
test fish /usr/bin/fish
test libvirt-clients /usr/bin/virt-xml-validate
test libxml2-utils /usr/bin/xmllint

bench erofs-utils /usr/bin/mkfs.erofs
bench httpdirfs /usr/bin/httpdirfs
bench squashfuse /usr/bin/squashfuse
"

command=${1:-build}
case $command in
build) groups=" build " ;;
demo) groups=" build demo " ;;
test) groups=" build demo test " ;;
bench) groups=" build demo test bench " ;;
*)
    echo "usage: $0 [build|demo|test|bench]" >&2
    exit 2
    ;;
esac

say() {
    echo "cowcloop: $1" >&2
}

fail() {
    say "$1"
    exit 1
}

# The packages of a group that are not installed, by their files.
missing_of() {
    echo "$packages" | while read -r group package files; do
        [ "$group" = "$1" ] || continue
        for file in $files; do
            [ ! -e "$file" ] || continue 2
        done
        echo "$package"
    done
}

# Whether cargo and rustc are there and new enough.
needed=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"/\1/p' Cargo.toml)
rust_is_new_enough() {
    hash -r
    for program in cargo rustc; do
        minor=$("$program" --version 2>/dev/null | sed -n 's/^[a-z]* 1\.\([0-9]*\)\..*/\1/p')
        [ "${minor:-0}" -ge "$needed" ] || return 1
    done
}

# The version that apt would install; nothing if the distribution has no such package.
candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([^(]*\)$/\1/p'
}

# The first of the distribution's Rust packages that are new enough. Debian 12 and 13 have
# current releases as rustc-web.
rust_packages() {
    for suffix in "" -web; do
        minor=$(candidate "rustc$suffix" | sed -n 's/^1\.\([0-9]*\)\..*/\1/p')
        if [ "${minor:-0}" -ge "$needed" ]; then
            echo "cargo$suffix rustc$suffix"
            return
        fi
    done
}

missing=$(for group in $groups; do missing_of "$group"; done | tr '\n' ' ')
# Debian packages ensurepip apart from the interpreter.
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || missing="${missing}python3 python3-venv "
rust=
if ! rust_is_new_enough; then
    rust="Rust 1.$needed or newer"
    old=$(command -v cargo || true)
    case $old in
    "" | /usr/bin/*) ;;
    "${HOME:-}"/.cargo/*) fail "$rust is needed, and $old is older: run rustup update" ;;
    *) fail "$rust is needed, and $old is older: update it, or take it from PATH" ;;
    esac
fi
[ -n "$missing$rust" ] || exit 0
command -v apt-get >/dev/null || fail "no apt-get here: install $missing${rust:+ and $rust} by hand"

as_root=sudo
[ "$(id -u)" != 0 ] || as_root=env
command -v $as_root >/dev/null || as_root=
apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
}

# Without its lists apt knows no package.
lists_are_there() {
    ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1
}
choose() {
    wanted= absent=
    for package in $missing; do
        if ! lists_are_there || [ -n "$(candidate "$package")" ]; then
            wanted="$wanted $package"
        else
            absent="$absent $package"
        fi
    done
    [ -z "$rust" ] || wanted="$wanted $(rust_packages)"
}
remedy="as root, run: apt-get install --no-install-recommends"
choose
if [ -n "$wanted$rust" ] && [ -n "$as_root" ]; then
    apt update || fail "$remedy$wanted"
    choose
fi
[ -z "$absent" ] || say "not in this distribution:$absent (tests do without)"
if [ -n "$wanted" ] && [ -z "$as_root" ]; then
    [ -z "$rust" ] || [ -n "$(rust_packages)" ] || wanted="$wanted, and install $rust"
    fail "there is no sudo here: $remedy$wanted"
elif [ -n "$wanted" ]; then
    # shellcheck disable=SC2086 # a list of words
    apt install -y --no-install-recommends $wanted || fail "$remedy$wanted"
fi
[ -z "$rust" ] || rust_is_new_enough || fail "$rust is needed, and no package has it: \
install it from https://rustup.rs and run make again"
