# The root file system from a compressed image: functions for an initramfs, whichever made it.
#
# root=cowcloop:IMAGE[,OPTION...] on the kernel's command line; docs/howto/live-boot.md has all of
# it. Who reads this file has cowcloop_give_up, which is told a line and comes back to have all of
# it tried again.
# shellcheck shell=sh

# A root of the daemon's own, which stays when the root changes: it finds its files there for as
# long as it lives. systemd leaves alone what is mounted below, and at the end comes back to it.
cowcloop_home=/run/initramfs
# Times, a second apart, that something is looked for before the user is asked.
cowcloop_patience=${cowcloop_patience:-20}

cowcloop_say() {
    echo "cowcloop: $*" >/dev/console
}

# Takes apart what follows "cowcloop:".
cowcloop_parse() {
    image=${1%%,*} cow=ram via='' toram='' boot_id='' sectors='' more=''
    case $1 in
    *,*) rest=${1#*,} ;;
    *) rest= ;;
    esac
    old_ifs=$IFS
    IFS=,
    # shellcheck disable=SC2086 # the options
    set -- $rest
    IFS=$old_ifs
    for option; do
        case $option in
        cow=*) cow=${option#cow=} ;;
        via=ublk | via=fuse) via=${option#via=} ;;
        toram) toram=yes ;;
        boot-id) boot_id=yes ;;
        verity=* | verity-tree=* | trace=* | prefetch=* | timeout=* | cache-limit=*)
            more="$more $option"
            ;;
        *) cowcloop_say "root=: $option: no such option; it is ignored" ;;
        esac
    done
}

# Calls a command, once a second, until it succeeds.
cowcloop_wait() {
    waited=0
    until "$@"; do
        waited=$((waited + 1))
        [ "$waited" -lt "$cowcloop_patience" ] || return 1
        sleep 1
    done
}

# The device of LABEL=X, UUID=X or /dev/X at the beginning of a place, and the path after it.
cowcloop_place() {
    case $1 in
    /dev/*)
        device=${1%/} path=
        until [ -b "$device" ]; do
            path=/${device##*/}$path device=${device%/*}
            [ "$device" != /dev ] || return 1
        done
        ;;
    LABEL=* | UUID=* | PARTLABEL=* | PARTUUID=*)
        device=$(blkid -l -t "${1%%/*}" -o device) && [ -b "$device" ] || return 1
        case $1 in
        */*) path=/${1#*/} ;;
        *) path= ;;
        esac
        ;;
    *) return 1 ;;
    esac
}

# Mounts a device below the daemon's root; the type is looked up, as it may be a module's.
cowcloop_mount() {
    type=$(blkid -o value -s TYPE "$1") || return 1
    modprobe -q "$type"
    mkdir -p "$cowcloop_home/$2"
    mount -t "$type" -o "$3" "$1" "$cowcloop_home/$2"
}

# The medium with the image: $served becomes the image's path as the daemon sees it.
cowcloop_medium() {
    if ! cowcloop_wait cowcloop_place "$image"; then
        problem="$image: no such device, label or UUID"
        return 1
    fi
    medium=$device
    if [ -z "$path" ]; then
        served=$device
        return
    fi
    if ! cowcloop_mount "$medium" medium ro; then
        problem="$medium: cannot be mounted"
        return 1
    fi
    inner=
    case $path in
    *:/*) inner=${path#*:} path=${path%%:/*} ;;
    esac
    served=/medium$path
    if [ ! -f "$cowcloop_home$served" ]; then
        problem="$medium has no file $path"
        return 1
    fi
    [ -n "$inner" ] || return 0
    modprobe -q -a loop isofs
    mkdir -p "$cowcloop_home/iso"
    if ! mount -t iso9660 -o ro,loop "$cowcloop_home$served" "$cowcloop_home/iso"; then
        problem="$path: is no ISO 9660 image"
        return 1
    fi
    served=/iso$inner
    if [ ! -f "$cowcloop_home$served" ]; then
        problem="$path has no file $inner"
        return 1
    fi
}

# Where changes go: $changes becomes the daemon's parameters.
cowcloop_changes() {
    case $cow in
    none) changes= ;;
    ram) changes=cow=:memory: ;;
    ram:*) changes="cow=:memory: memory-limit=${cow#ram:}" ;;
    medium | medium/*)
        path=${cow#medium}
        if [ -z "$medium" ] || ! mount -o remount,rw "$cowcloop_home/medium"; then
            problem="cow=$cow: the image's medium cannot be written"
            return 1
        fi
        changes="cow=/medium${path:-/cowcloop.cow}"
        ;;
    *)
        if ! cowcloop_wait cowcloop_place "$cow"; then
            problem="cow=$cow: no such device, label or UUID"
            return 1
        fi
        if [ "$device" = "$medium" ]; then
            cow=medium$path
            cowcloop_changes
            return
        fi
        if ! cowcloop_mount "$device" cow rw,noatime; then
            problem="cow=$cow: $device cannot be mounted for writing"
            return 1
        fi
        changes="cow=/cow${path:-/cowcloop.cow}"
        ;;
    esac
}

# What the daemon has to have in its root.
cowcloop_make_home() {
    mkdir -p "$cowcloop_home"
    mount -t tmpfs -o mode=700,nosuid cowcloop "$cowcloop_home"
    for folder in dev etc fuse oldroot proc run sys tmp usr/bin usr/lib usr/lib64 usr/sbin; do
        mkdir -p "$cowcloop_home/$folder"
    done
    for folder in bin lib lib64 sbin; do
        ln -s "usr/$folder" "$cowcloop_home/$folder"
    done
    while read -r from to; do
        mkdir -p "$cowcloop_home${to%/*}"
        cp -L "$from" "$cowcloop_home$to"
    done </usr/lib/cowcloop/home.list
    for name in $(busybox --list); do
        ln -s busybox "$cowcloop_home/bin/$name"
    done
    cp /usr/lib/cowcloop/shutdown "$cowcloop_home/shutdown"
    mount -t devtmpfs devtmpfs "$cowcloop_home/dev"
    mount -t proc proc "$cowcloop_home/proc"
    mount -t sysfs sysfs "$cowcloop_home/sys"
}

# Addresses change, and names are asked for again when a server was away.
cowcloop_network() {
    cowcloop_configure_network
    for file in resolv.conf hosts nsswitch.conf; do
        [ ! -e "/etc/$file" ] || cp "/etc/$file" "$cowcloop_home/etc/$file"
    done
}

# Starts the daemon; $root becomes the block device.
cowcloop_serve() {
    if [ "$via" != fuse ] && modprobe -q ublk_drv && [ -e /dev/ublk-control ]; then
        door=ublk
    elif [ "$via" = ublk ]; then
        problem="this kernel has no ublk"
        return 1
    else
        modprobe -q -a fuse loop
        door='fuse /fuse'
    fi
    events=$cowcloop_home/events
    rm -f "$events"
    mkfifo "$events"
    # shellcheck disable=SC2086,SC2016 # words; the inner shell's
    chroot "$cowcloop_home" /bin/sh -c '
        echo -1000 >/proc/self/oom_score_adj
        exec -a @cowcloopd /bin/cowcloopd "$@" events=3 3>/events 2>/dev/console' \
        sh $door "image=$served" $changes $more </dev/null &
    root= daemon=
    while read -r line; do
        case $line in
        *'"ready"'*)
            daemon=$(echo "$line" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
            root=$(echo "$line" | sed -n 's/.*"device": *"\([^"]*\)".*/\1/p')
            break
            ;;
        esac
    done <"$events"
    rm -f "$events"
    if [ -z "$root" ]; then
        problem="$image: cannot be served"
        return 1
    fi
    echo "$daemon" >"$cowcloop_home/run/cowcloopd.pid"
    case $root in
    /fuse/*)
        file=$cowcloop_home$root
        root=$(losetup -f) && losetup "$root" "$file" && return 0
        problem="$file: no loop device is free"
        return 1
        ;;
    esac
}

# The device by NBD, whose server has the cowfile. In the name %m stands for the machine's address
# and %h for its name.
cowcloop_nbd() {
    host=${image#nbd://}
    name=${host#*/} host=${host%%/*}
    [ "$name" != "$host" ] || name=
    port=10809
    case $host in
    *:*) port=${host##*:} host=${host%:*} ;;
    esac
    address=$(cat "/sys/class/net/${DEVICE:-eth0}/address" 2>/dev/null | tr : -)
    name=$(echo "$name" | sed "s/%m/$address/g; s/%h/$(hostname)/g")
    [ -z "$boot_id" ] || name=$name@$(cat /proc/sys/kernel/random/boot_id)
    modprobe -q nbd
    root=/dev/nbd0
    if ! cowcloop_wait chroot "$cowcloop_home" /sbin/nbd-client "$host" "$port" -N "$name" "$root" \
        -b 512 -persist -systemd-mark >/dev/console 2>&1; then
        problem="nbd://$host:$port/$name: cannot be reached"
        return 1
    fi
}

# Everything up to the device, once.
cowcloop_try() {
    medium='' root=''
    case $image in
    nbd://*)
        cowcloop_network
        cowcloop_nbd
        return
        ;;
    http://* | https://*)
        cowcloop_network
        served=$image more="$more cache-dir=/cache"
        ;;
    *) cowcloop_medium || return 1 ;;
    esac
    cowcloop_changes && cowcloop_serve
}

# What must not stand in the way of another try.
cowcloop_undo() {
    for folder in iso medium cow fuse; do
        umount "$cowcloop_home/$folder" 2>/dev/null
    done
}

# Finds and serves what $1 says, and mounts it on $2 with the options $3.
cowcloop_root() {
    cowcloop_make_home
    while :; do
        cowcloop_parse "$1"
        if cowcloop_try; then
            type=$(blkid -o value -s TYPE "$root")
            modprobe -q "$type"
            # shellcheck disable=SC2086 # options
            mount -t "${type:-auto}" $3 "$root" "$2" && break
            problem="$root: cannot be mounted"
        fi
        cowcloop_say "$problem"
        cowcloop_undo
        cowcloop_give_up "cowcloop: $problem"
    done
}
