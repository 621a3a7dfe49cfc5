#!/bin/sh
# build.sh CACHE [SOURCE]: User Mode Linux kernels, built from Debian's packages into the folder
# CACHE: one of 6.1 with the cloop module, as it is and mended, and one of SOURCE, a
# linux-source-VERSION.tar.xz, with ublk. Takes some minutes, once; what is there already is kept.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$1
jobs=${JOBS:-$(nproc)}
source=linux-source-6.1
tree=$cache/$source

need() {
    missing=
    for pair in "$@"; do
        [ -e "${pair#*:}" ] || missing="$missing ${pair%%:*}"
    done
    [ -z "$missing" ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing >&2
    else
        echo "the kernel lab needs: apt install$missing" >&2
        exit 1
    fi
}
need $source:/usr/src/$source.tar.xz cloop-src:/usr/src/cloop.tar.xz \
    flex:/usr/bin/flex bison:/usr/bin/bison bc:/usr/bin/bc libelf-dev:/usr/include/libelf.h \
    xz-utils:/usr/bin/xz make:/usr/bin/make gcc:/usr/bin/gcc kmod:/usr/bin/kmod \
    busybox-static:/usr/bin/busybox fio:/usr/bin/fio nbd-client:/usr/sbin/nbd-client \
    dmsetup:/usr/sbin/dmsetup squashfs-tools:/usr/bin/mksquashfs

mkdir -p "$cache"

# configure ARCHIVE TREE: a kernel that runs on processors with a large XSAVE area.
configure() {
    rm -rf "$2"
    tar -C "$cache" -xJf "$1"
    # Room for a processor's whole XSAVE area, and its length handed back as it was given:
    # the kernel refuses any other, on processors where that area is large.
    sed -i 's/HOST_FP_SIZE, 2696)/HOST_FP_SIZE, 12288)/' "$2/arch/x86/um/user-offsets.c"
    sed -i \
        -e 's/^\(static \)\{0,1\}int have_xstate_support;/&\nstatic unsigned long xstate_length;/' \
        -e '/^int save_fp_registers/,/^}/s/^\t\treturn 0;/\t\txstate_length = iov.iov_len;\n&/' \
        -e '/^int restore_fp_registers/,/^}/s/iov_len = FP_SIZE.*/iov_len = xstate_length;/' \
        "$2/arch/x86/um/os-Linux/registers.c"
    make -C "$2" ARCH=um defconfig
    cat "$here/kernel.config" >>"$2/.config"
    make -C "$2" ARCH=um olddefconfig
}

if [ ! -x "$cache/linux" ]; then
    configure /usr/src/$source.tar.xz "$tree"
    make -C "$tree" ARCH=um -j"$jobs" linux modules
    cp "$tree/linux" "$cache/linux"
fi
if [ $# -gt 1 ] && [ ! -x "$cache/linux-ublk" ]; then
    newer=$cache/$(basename "$2" .tar.xz)
    configure "$2" "$newer"
    make -C "$newer" ARCH=um -j"$jobs" linux
    cp "$newer/linux" "$cache/linux-ublk"
    # 2 GB that nothing needs any more: no module is built for this one.
    rm -rf "$newer"
fi

# module NAME SCRIPT: the driver with a sed script applied to it.
module() {
    [ -e "$cache/$1.ko" ] && return
    folder=$cache/build-$1
    rm -rf "$folder"
    mkdir -p "$folder"
    tar -C "$folder" --strip-components=2 -xJf /usr/src/cloop.tar.xz modules/cloop
    sed -i "$2" "$folder/cloop.c"
    # Both names left the kernel after 5.15.
    cat >"$folder/Kbuild" <<'KBUILD'
obj-m := cloop.o
ccflags-y += '-Drq_disk=q->disk' -Dblk_cleanup_disk=put_disk
KBUILD
    make -C "$tree" ARCH=um M="$folder" modules
    cp "$folder/cloop.ko" "$cache/$1.ko"
}
module cloop ''
# The driver handles a request's whole list of segments again for each part that it completes;
# once is enough.
module cloop-mended '/^ do {$/d; s/^ } while(blk_update_request(req, ret, blk_rq_cur_bytes(req)));$//'
grep -q 'while(blk_update_request' "$cache/build-cloop/cloop.c"
! grep -q 'while(blk_update_request' "$cache/build-cloop-mended/cloop.c"
