# The root file system from a compressed image: functions for an initramfs, whichever made it.
#
# root=cowcloop:IMAGE[,OPTION...] on the kernel's command line; docs/howto/live-boot.md has all of
# it. The script that reads this file has three functions more: cowcloop_configure_network;
# cowcloop_check, which checks the file system on device $1, of type $2, before it is mounted; and
# cowcloop_give_up, which is told a line; when it returns, all of it is tried again.
# shellcheck shell=sh

. /usr/lib/cowcloop/places.sh

# The daemon has a root of its own, which stays when the system's root changes: it finds its files
# there as long as it lives. systemd leaves alone what is mounted below this place, and comes back
# to it at the end.
cowcloop_home=/run/initramfs
# Seconds during which something is looked for before the user is asked.
cowcloop_patience=${cowcloop_patience:-30}

cowcloop_say() {
    echo "cowcloop: $*" >/dev/console
}

# Takes apart what follows "cowcloop:".
cowcloop_parse() {
    image=${1%%,*} cow=ram via='' toram='' boot_id='' trace='' more='' by_daemon=''
    rest=${1#"$image"}
    old_ifs=$IFS
    IFS=,
    # shellcheck disable=SC2086 # the options
    set -- $rest
    IFS=$old_ifs
    for option; do
        case $option in
        '') continue ;;
        boot-id)
            boot_id=yes
            continue
            ;;
        cow=*) cow=${option#cow=} ;;
        via=ublk | via=fuse) via=${option#via=} ;;
        toram) toram=yes ;;
        # A file of the image's medium.
        trace=/*) trace=${option#trace=} ;;
        verity=* | trace=* | prefetch=* | timeout=* | cache=* | cache-limit=*)
            more="$more $option"
            ;;
        *)
            cowcloop_say "$option: no such option of root=cowcloop:, so it is ignored"
            continue
            ;;
        esac
        by_daemon=${by_daemon:-$option}
    done
}

# Puts what the daemon needs into its root.
cowcloop_make_home() {
    mkdir -p "$cowcloop_home"
    mount -t tmpfs -o mode=700,nosuid,size=90% cowcloop "$cowcloop_home"
    for folder in dev etc fuse oldroot proc run sys tmp usr/bin usr/lib usr/lib64 usr/sbin; do
        mkdir -p "$cowcloop_home/$folder"
    done
    for folder in bin lib lib64 sbin; do
        ln -s "usr/$folder" "$cowcloop_home/$folder"
    done
    while read -r file; do
        mkdir -p "$cowcloop_home${file%/*}"
        cp -L "$file" "$cowcloop_home$file"
    done </usr/lib/cowcloop/home.list
    for name in $("$cowcloop_home/bin/busybox" --list); do
        [ -e "$cowcloop_home/bin/$name" ] || ln -s busybox "$cowcloop_home/bin/$name"
    done
    cp /usr/lib/cowcloop/shutdown /usr/lib/cowcloop/leave "$cowcloop_home/"
    mount -t devtmpfs devtmpfs "$cowcloop_home/dev"
    mount -t proc proc "$cowcloop_home/proc"
    mount -t sysfs sysfs "$cowcloop_home/sys"
}

# The network, and for the daemon how names are found there.
cowcloop_network() {
    cowcloop_configure_network
    for file in resolv.conf hosts nsswitch.conf; do
        [ ! -e "/etc/$file" ] || cp "/etc/$file" "$cowcloop_home/etc/$file"
    done
}

# An image at a URL: what was fetched is kept in a quarter of the memory, or all of it is.
cowcloop_url() {
    cowcloop_network
    if [ -n "$toram" ]; then
        memory=$(($(cowcloop_available) / 10 * 9))
    else
        read -r _ memory _ </proc/meminfo
        memory=$((memory / 4))
    fi
    case $more in
    *cache-limit=*) ;;
    *) more="$more cache-limit=${memory}K" ;;
    esac
    more="$more cache-dir=/cache"
    served=$image
}

# Starts the daemon; $root becomes the block device.
cowcloop_serve() {
    problem="this kernel has no ublk"
    if [ "$via" != fuse ] && modprobe -q ublk_drv && [ -e /dev/ublk-control ]; then
        door=ublk
    elif [ "$via" = ublk ]; then
        return 1
    else
        modprobe -q -a fuse loop
        door='fuse /fuse'
    fi
    events=$cowcloop_home/events
    rm -f "$events"
    mkfifo "$events"
    # The pipe is opened here, so that it ends whatever fails there.
    # shellcheck disable=SC2086,SC2016 # they are words; the inner shell's variables
    chroot "$cowcloop_home" /bin/sh -c '
        echo -1000 >/proc/self/oom_score_adj
        exec -a @cowcloopd /bin/cowcloopd "$@"' \
        sh $door --kernel-log events=3 "image=$served" $changes $more \
        </dev/null >/dev/null 2>&1 3>"$events" &
    root='' daemon='' problem="$image: cannot be served"
    while read -r line; do
        case $line in
        *'"ready"'*)
            daemon=$(echo "$line" | sed -n 's/.*"pid":\([0-9]*\).*/\1/p')
            root=$(echo "$line" | sed -n 's/.*"device":"\([^"]*\)".*/\1/p')
            break
            ;;
        *'"error"'*) problem=$(echo "$line" | sed 's/.*"text":"\(.*\)".*/\1/') ;;
        esac
    done <"$events"
    rm -f "$events"
    if [ -z "$root" ]; then
        case $door:$via:$problem in
        ublk::/dev/ublk*) ;;
        *) return 1 ;;
        esac
        # The driver is too old, which is not the image's fault.
        via=fuse
        cowcloop_serve
        return
    fi
    echo "$daemon" >"$cowcloop_home/cowcloopd.pid"
    # sysvinit spares it at the end.
    mkdir -p /run/sendsigs.omit.d
    echo "$daemon" >/run/sendsigs.omit.d/cowcloopd
    case $root in
    /fuse/*)
        problem="$image: no loop device is free"
        file=$cowcloop_home$root
        root=$(losetup -f) && losetup "$root" "$file" || return 1
        ;;
    esac
    [ -n "$toram" ] || return 0
    problem="$image: not all of it can be fetched into memory"
    cat "$root" >/dev/null
}

# The device by NBD, whose server has the cowfile. In its name %m stands for the address of the
# machine's network card, and %h for the machine's name.
cowcloop_nbd() {
    machine='' host=${image#nbd://}
    name=${host#*/} host=${host%%/*}
    [ "$name" != "$host" ] || name=
    port=10809
    case $host in
    *:*) port=${host##*:} host=${host%:*} ;;
    esac
    address=$(cat "/sys/class/net/${DEVICE:-eth0}/address" 2>/dev/null | tr : -)
    case $name in
    *%m*)
        problem="$image: no network card has an address that could stand for %m"
        [ -n "$address" ] || return 1
        ;;
    esac
    case $name in
    *%h*)
        machine=$(hostname)
        # It may come from the network.
        problem="$image: the machine's name cannot stand for %h: it may have A-Z, a-z, 0-9, - and ."
        case $machine in
        '' | *[!A-Za-z0-9.-]*) return 1 ;;
        esac
        ;;
    esac
    name=$(echo "$name" | sed "s/%m/$address/g; s/%h/$machine/g")
    [ -z "$boot_id" ] || name=$name@$(cat /proc/sys/kernel/random/boot_id)
    modprobe -q nbd
    root=/dev/nbd0
    problem="nbd://$host:$port/$name: does not answer, or has no such export"
    cowcloop_wait "nbd://$host:$port/$name" chroot "$cowcloop_home" timeout 10 /sbin/nbd-client \
        "$host" "$port" -N "$name" "$root" -b 512 -persist -systemd-mark >/dev/null 2>&1
}

# Everything up to the device, once. Where it fails, $problem says why.
cowcloop_try() {
    medium='' root='' daemon=''
    case $image in
    nbd://*)
        problem="$by_daemon: not with $image, whose server has the image and the cowfile"
        [ -z "$by_daemon" ] || return 1
        cowcloop_network
        cowcloop_nbd
        return
        ;;
    http://* | https://*)
        problem="trace=$trace: $image is on no medium that could have this file: name a URL"
        [ -z "$trace" ] || return 1
        cowcloop_url
        ;;
    *)
        cowcloop_medium || return 1
        if [ -n "$toram" ]; then
            cowcloop_copy || return 1
            toram=
        fi
        [ -z "$trace" ] || more="$more trace=/medium$trace"
        ;;
    esac
    cowcloop_changes && cowcloop_serve
}

# Removes what would stand in the way of another try.
cowcloop_undo() {
    case $root in
    /dev/loop*) losetup -d "$root" ;;
    /dev/nbd*) nbd-client -d "$root" >/dev/null ;;
    esac
    if [ -n "$daemon" ]; then
        kill "$daemon"
        while kill -0 "$daemon" 2>/dev/null; do sleep 1; done
    fi
    rm -rf "$cowcloop_home/ram"
    for folder in fuse iso medium cow; do
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
            modprobe -q "${type:-ext4}"
            if [ "$cow" != none ] && [ "$(cat "/sys/block/${root##*/}/ro")" = 0 ]; then
                cowcloop_check "$root" "$type"
            fi
            problem="$image: its file system (${type:-unknown}) cannot be mounted"
            # shellcheck disable=SC2086 # options
            mount -t "${type:-auto}" $3 "$root" "$2" && return
        fi
        cowcloop_undo
        cowcloop_give_up "cowcloop: $problem"
    done
}
