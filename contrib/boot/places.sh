# Where the image is and where changes go: part of root.sh, whose variables these functions set.
# shellcheck shell=sh disable=SC2034

# Seconds since the kernel has started.
cowcloop_uptime() {
    read -r uptime _ </proc/uptime
    echo "${uptime%.*}"
}

# Calls a command, once a second, until it succeeds. $1 is what it waits for.
cowcloop_wait() {
    what=$1 tries=0 end=$(($(cowcloop_uptime) + cowcloop_patience))
    shift
    until "$@"; do
        [ $tries != 1 ] || cowcloop_say "waiting for $what"
        tries=$((tries + 1))
        [ "$(cowcloop_uptime)" -lt $end ] || return 1
        sleep 1
    done
}

# The device of LABEL=X, UUID=X or /dev/X at the beginning of a place, and the path behind it.
cowcloop_place() {
    case $1 in
    /dev/?*)
        device=${1%/} path=
        until [ -b "$device" ]; do
            path=/${device##*/}$path device=${device%/*}
            case $device in
            /dev/?*) ;;
            *) return 1 ;;
            esac
        done
        ;;
    LABEL=* | UUID=* | PARTLABEL=* | PARTUUID=*)
        device=$(blkid -l -t "${1%%/*}" -o device) && [ -b "$device" ] || return 1
        path=${1#"${1%%/*}"}
        path=${path%/}
        ;;
    *) return 1 ;;
    esac
}

# Mounts a device on a folder of the daemon's root. Its type may be a module's.
cowcloop_mount() {
    type=$(blkid -o value -s TYPE "$1") || return 1
    modprobe -q "$type"
    mkdir -p "$cowcloop_home/$2"
    if [ "$type" != iso9660 ]; then
        mount -t "$type" -o "$3" "$1" "$cowcloop_home/$2"
        return
    fi
    # An ISO image on a stick is the whole stick, partitions and all: a mount of the stick's own
    # device would keep the partitions from being mounted.
    modprobe -q loop
    loop=$(losetup -f) && losetup -r "$loop" "$1" || return 1
    mount -t iso9660 -o ro "$loop" "$cowcloop_home/$2"
    done=$?
    # A loop device that is mounted goes when it is unmounted.
    losetup -d "$loop"
    return $done
}

# The medium with the image: $served becomes the image's path as the daemon sees it.
cowcloop_medium() {
    problem="$image: there is no such device, label or UUID"
    cowcloop_wait "${image%%/*}" cowcloop_place "$image" || return 1
    medium=$device served=$device
    [ -n "$path" ] || return 0
    problem="$medium: cannot be mounted"
    cowcloop_mount "$medium" medium ro || return 1
    inner=
    case $path in
    *:/*) inner=${path#*:} path=${path%%:/*} ;;
    esac
    served=/medium$path
    problem="$medium has no file $path"
    [ -f "$cowcloop_home$served" ] || return 1
    [ -n "$inner" ] || return 0
    modprobe -q -a loop isofs
    mkdir -p "$cowcloop_home/iso"
    problem="$path: is no ISO 9660 image"
    mount -t iso9660 -o ro,loop "$cowcloop_home$served" "$cowcloop_home/iso" || return 1
    served=/iso$inner
    problem="$path has no file $inner"
    [ -f "$cowcloop_home$served" ]
}

# KiB of memory that can be had.
cowcloop_available() {
    sed -n 's/^MemAvailable: *\([0-9]*\) .*/\1/p' /proc/meminfo
}

# Copies the image into memory, with what lies beside it, and lets go of its medium.
cowcloop_copy() {
    if [ -n "$trace" ]; then
        problem="$image: the medium has no file $trace"
        [ -f "$cowcloop_home/medium$trace" ] || return 1
    fi
    problem="$image: does not fit into memory, without toram it may boot"
    size=0
    for file in "$served" "$served.verity" "$served.trace" ${trace:+"/medium$trace"}; do
        [ ! -e "$cowcloop_home$file" ] ||
            size=$((size + $(stat -L -c %s "$cowcloop_home$file") / 1024 + 4))
    done
    # The system wants some of it, too.
    [ $size -lt $(($(cowcloop_available) / 10 * 9)) ] || return 1
    mkdir -p "$cowcloop_home/ram"
    for file in "$served" "$served.verity" "$served.trace"; do
        [ ! -e "$cowcloop_home$file" ] || cp "$cowcloop_home$file" "$cowcloop_home/ram/" || return 1
    done
    served=/ram/${served##*/}
    if [ -n "$trace" ]; then
        cp "$cowcloop_home/medium$trace" "$cowcloop_home$served.named-trace" || return 1
        more="$more trace=$served.named-trace" trace=
    fi
    umount "$cowcloop_home/iso" 2>/dev/null
    case $cow in
    medium*) ;;
    *) ! umount "$cowcloop_home/medium" || medium= ;;
    esac
}

# Where changes go: $changes becomes the daemon's parameters.
cowcloop_changes() {
    case $cow in
    none) changes= ;;
    ram) changes=cow=:memory: ;;
    ram:*) changes="cow=:memory: memory-limit=${cow#ram:}" ;;
    medium | medium/*)
        problem="cow=$cow: the image's medium cannot be written"
        [ -n "$medium" ] && mount -o remount,rw "$cowcloop_home/medium" || return 1
        cowcloop_cowfile medium "${cow#medium}"
        ;;
    *)
        problem="cow=$cow: there is no such device, label or UUID"
        cowcloop_wait "cow=${cow%%/*}" cowcloop_place "$cow" || return 1
        if [ "$device" = "$medium" ]; then
            cow=medium$path
            cowcloop_changes
            return
        fi
        problem="cow=$cow: $device cannot be mounted for writing"
        cowcloop_mount "$device" cow rw,noatime || return 1
        cowcloop_cowfile cow "$path"
        ;;
    esac
}

# The cowfile $2 on what is mounted on $1.
cowcloop_cowfile() {
    file=${2%/}
    file=/$1${file:-/cowcloop.cow}
    mkdir -p "$cowcloop_home${file%/*}"
    changes=cow=$file
}
