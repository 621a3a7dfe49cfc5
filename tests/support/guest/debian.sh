#!/bin/sh
# debian.sh FOLDER DEBOOTSTRAP SUITE MIRROR PACKAGES SIZE: FOLDER/systemd.img and sysvinit.img, the
# file systems of two Debians. Run by root in a mount namespace of its own.
set -eu
folder=$1 debootstrap=$2 suite=$3 mirror=$4 packages=$5 size=$6
root=$folder/tree/root

mkdir "$folder/tree"
# dpkg syncs each file: that takes minutes on a disk, and no time in memory.
available=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
if [ "$available" -gt 2000000 ]; then
    mount -t tmpfs -o mode=755,size=1G tmpfs "$folder/tree"
fi

finish() {
    cp -r --no-preserve=ownership "$folder/files/common/." "$folder/files/$1/." "$root"
}

save() {
    mke2fs -q -F -t ext4 -d "$root" "$folder/$1.img" "$size"
    chmod 644 "$folder/$1.img"
}

"$debootstrap" --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >&2
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* \
    "$root"/usr/share/locale/*
finish systemd
# What nothing here waits for: the prompt is the console's.
for unit in getty-static systemd-logind; do
    ln -s /dev/null "$root/etc/systemd/system/$unit.service"
done
save systemd

mkdir "$root/debs"
cp "$folder"/debs/* "$root/debs/"
chroot "$root" sh -eu >&2 <<'END'
export DEBIAN_FRONTEND=noninteractive
dpkg --force-all --purge systemd-sysv
dpkg --force-depends --install /debs/*.deb
rm -rf /debs
END
finish sysvinit
chmod 755 "$root/etc/init.d/cowcloop-root"
chroot "$root" update-rc.d cowcloop-root defaults >&2
save sysvinit

rm -rf --one-file-system "$root"
mountpoint -q "$folder/tree" && umount "$folder/tree"
rmdir "$folder/tree"
