#!/bin/sh
# Generator of systemd's in dracut's initramfs. The hook pre-mount mounts the root; without this
# unit systemd would take root=cowcloop:... for a device.

. /lib/dracut-lib.sh

case $(getarg root=) in
cowcloop:*) ;;
*) exit 0 ;;
esac
mkdir -p "$2/initrd-root-fs.target.requires"
cat >"$2/sysroot.mount" <<END
[Unit]
After=dracut-pre-mount.service
Before=initrd-root-fs.target

[Mount]
What=cowcloop
Where=/sysroot
END
ln -sf ../sysroot.mount "$2/initrd-root-fs.target.requires/"
