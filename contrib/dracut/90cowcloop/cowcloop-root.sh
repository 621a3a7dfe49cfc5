#!/bin/sh
# cowcloop-root IMAGE[,OPTION...] DIRECTORY MOUNT-OPTIONS: mounts the root in dracut's initramfs.
# It is a program, as dracut has variables of its own by the names of those in root.sh.

. /lib/dracut-lib.sh
. /lib/fs-lib.sh
. /usr/lib/cowcloop/root.sh

cowcloop_configure_network() {
    if [ -e /tmp/cowcloop.network ]; then
        read -r DEVICE </tmp/cowcloop.network
    fi
    # systemd-networkd leaves this file to systemd-resolved.
    if [ ! -e /etc/resolv.conf ] && [ -e /run/systemd/netif/state ]; then
        sed -n 's/^DNS=//p' /run/systemd/netif/state | tr ' ' '\n' | sed 's/^/nameserver /' \
            >/etc/resolv.conf
    fi
}

cowcloop_check() {
    getargbool 0 rd.skipfsck || [ "$(getarg fsck.mode=)" = skip ] || fsck_single "$1" "${2:-auto}"
}

cowcloop_give_up() {
    emergency_shell -n cowcloop "$1"
}

cowcloop_root "$1" "$2" "-o $3"
