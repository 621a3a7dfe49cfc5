#!/bin/bash
# Module of dracut: what root=cowcloop:... needs in the initramfs. omit_dracutmodules+=" cowcloop "
# in a file of /etc/dracut.conf.d leaves it out.

_contents() {
    # shellcheck source=contrib/boot/contents.sh
    . "${dracutsysrootdir-}/usr/lib/cowcloop/boot/contents.sh"
}

check() {
    # shellcheck disable=SC2154 # dracut's
    [[ $mount_needs ]] && return 1
    require_binaries busybox blkid losetup || return 1
}

depends() {
    echo base fs-lib
    # Without network the root can be on a medium only.
    if check_module network >/dev/null 2>&1; then
        echo network
    fi
}

installkernel() {
    local cowcloop_modules
    _contents
    # The root may be one of another machine.
    # shellcheck disable=SC2086 # a list of words
    hostonly='' instmods $cowcloop_modules
}

install() {
    local cowcloop_library cowcloop_scripts cowcloop_checkers cowcloop_modules
    local cowcloop_certificates name source target
    _contents
    while read -r source target; do
        inst_binary "$source" "$target"
    done < <(cowcloop_programs)
    # shellcheck disable=SC2154 # dracut's
    mkdir -p "$initdir/$cowcloop_library"
    cowcloop_home_list >"$initdir/$cowcloop_library/home.list"
    if [[ -e $cowcloop_certificates ]]; then
        inst_simple "$cowcloop_certificates"
    fi
    for name in $cowcloop_scripts; do
        inst_simple "$cowcloop_library/boot/$name" "$cowcloop_library/$name"
    done
    if ! dracut_module_included network; then
        dwarning "cowcloop: no root from the network, as dracut's module network is missing" \
            "or cannot be installed (package dracut-network)"
    fi
    inst_multiple blkid cat chroot cp grep hostname ln losetup mkdir mkfifo modprobe mount rm sed \
        sleep stat tr umount
    # shellcheck disable=SC2086 # a list of words
    inst_multiple -o e2fsck nbd-client $cowcloop_checkers
    # shellcheck disable=SC2154 # dracut's
    inst_hook cmdline 90 "$moddir/parse-root.sh"
    inst_hook pre-mount 90 "$moddir/mount-root.sh"
    inst_script "$moddir/cowcloop-root.sh" /sbin/cowcloop-root
    inst_script "$moddir/cowclooproot.sh" /sbin/cowclooproot
    if dracut_module_included systemd-initrd; then
        # shellcheck disable=SC2154 # dracut's
        inst_script "$moddir/generator.sh" "$systemdutildir/system-generators/dracut-cowcloop-generator"
    fi
    dracut_need_initqueue
}
