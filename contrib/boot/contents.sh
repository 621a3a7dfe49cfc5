# What an initramfs needs for root.sh: for the hooks of the programs that make one.
# shellcheck shell=sh disable=SC2034

cowcloop_library=/usr/lib/cowcloop
# Files of this folder; the boot finds them in /usr/lib/cowcloop.
cowcloop_scripts="root.sh places.sh shutdown leave"
# The root is checked before it is mounted.
cowcloop_checkers="fsck logsave fsck.ext2 fsck.ext3 fsck.ext4"
cowcloop_modules="ublk_drv fuse loop nbd isofs udf vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8
    ext4 xfs btrfs exfat squashfs overlay"
# The authorities that vouch for servers of https:.
cowcloop_certificates=/etc/ssl/certs/ca-certificates.crt

# The programs of the daemon's own root, a line for each: where it is here, and where it is there.
cowcloop_programs() {
    echo "$cowcloop_library/cowcloop/lib/cowcloopd /usr/bin/cowcloopd"
    echo "$(command -v busybox) /usr/bin/busybox"
    # Without it there is no root=cowcloop:nbd://...
    if client=$(command -v nbd-client); then
        echo "$client /usr/sbin/nbd-client"
    fi
}

# The list of what the boot puts into the daemon's own root, which is the initramfs's own files.
cowcloop_home_list() {
    {
        cowcloop_programs | while read -r source target; do
            echo "$target"
            ldd "$source" |
                sed -n 's/.*=> *\(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p'
        done
        [ ! -e "$cowcloop_certificates" ] || echo "$cowcloop_certificates"
    } | sort -u
}
