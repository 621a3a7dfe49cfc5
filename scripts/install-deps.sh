#!/bin/sh
# Installs what building, testing and the demo need, on Debian and Ubuntu. Quick and silent
# when all of it is there.
set -eu
cd "$(dirname "$0")/.."

# Packages, each with a file that it puts in place: looking for those costs no time.
wanted="
gcc:/usr/bin/gcc
cmake:/usr/bin/cmake
pkg-config:/usr/bin/pkg-config
git:/usr/bin/git
python3:/usr/bin/python3
nbdkit:/usr/bin/nbdkit|/usr/sbin/nbdkit
libnbd-bin:/usr/bin/nbdcopy
python3-libnbd:/usr/lib/python3/dist-packages/nbd.py
cloop-utils:/usr/bin/extract_compressed_fs
e2fsprogs:/usr/sbin/mke2fs|/sbin/mke2fs
mount:/usr/bin/mount|/bin/mount
fuse3:/usr/bin/fusermount3|/bin/fusermount3
fuse2fs:/usr/bin/fuse2fs|/usr/sbin/fuse2fs|/sbin/fuse2fs
fdisk:/usr/sbin/sfdisk|/sbin/sfdisk
dosfstools:/usr/sbin/mkfs.vfat|/sbin/mkfs.vfat
xfsprogs:/usr/sbin/mkfs.xfs|/sbin/mkfs.xfs
exfatprogs:/usr/sbin/mkfs.exfat|/sbin/mkfs.exfat
exfat-fuse:/usr/sbin/mount.exfat-fuse|/sbin/mount.exfat-fuse
nbd-client:/usr/sbin/nbd-client|/sbin/nbd-client
qemu-utils:/usr/bin/qemu-io
fio:/usr/bin/fio
lzop:/usr/bin/lzop
genisoimage:/usr/bin/genisoimage
"
missing=
for entry in $wanted; do
    found=
    for file in $(echo "${entry#*:}" | tr '|' ' '); do
        [ ! -e "$file" ] || found=yes
    done
    [ -n "$found" ] || missing="$missing ${entry%%:*}"
done
# ensurepip is what Debian keeps apart from the interpreter.
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

apt() {
    if [ "$(id -u)" = 0 ]; then
        DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
    else
        sudo DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
    fi
}

fail() {
    echo "cowcloop: $1" >&2
    exit 1
}

updated=
install() {
    command -v apt-get >/dev/null || fail "this needs:$* (no apt-get here: install them by hand)"
    if [ -z "$updated" ]; then
        apt update
        updated=yes
    fi
    apt install -y --no-install-recommends "$@"
}

# shellcheck disable=SC2086 # a list of words
[ -z "$missing" ] || install $missing

# Rust: what is on the PATH, else the first of the distribution's that is new enough.
needed=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"/\1/p' Cargo.toml)
minor_of() {
    "$1" --version 2>/dev/null | sed -n 's/^[a-z]* 1\.\([0-9]*\)\..*/\1/p'
}
new_enough() {
    command -v cargo >/dev/null && command -v rustc >/dev/null &&
        [ "$(minor_of cargo)" -ge "$needed" ] && [ "$(minor_of rustc)" -ge "$needed" ]
}
candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: 1\.\([0-9]*\)\..*/\1/p'
}
if ! new_enough; then
    [ -n "$updated" ] || ! command -v apt-get >/dev/null || { apt update && updated=yes; }
    # Debian 12 has current releases as cargo-web, Debian 13 and Ubuntu some as cargo.
    for suffix in "" -web; do
        minor=$(candidate "rustc$suffix")
        if [ -n "$minor" ] && [ "$minor" -ge "$needed" ]; then
            install "cargo$suffix" "rustc$suffix"
            break
        fi
    done
    hash -r
    new_enough || fail "Rust 1.$needed or newer is needed, and no package has it: \
install it from https://rustup.rs and run make again"
fi
