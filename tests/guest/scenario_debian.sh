# What a login shell does in the Debians of test_debian.py. In its first life the machine reboots, in
# the next it switches itself off.

daemon=/proc/$(cat /run/initramfs/cowcloopd.pid)

# The number in a line of such a file.
number() {
    sed -n "s/^$1:[[:space:]]*\([0-9]*\) kB\$/\1/p" "$2"
}

echo "init $(cat /proc/1/comm)"
# That login sets.
echo "login $LOGNAME"
echo "found $(cat /new.txt 2>/dev/null)"
echo "root $(sed -n 's|^\([^ ]*\) / \([^ ]*\) .*|\1 \2|p' /proc/mounts)"
echo "mounted $(sed -n 's|^\([^ ]*\) /run/initramfs/\([^ ]*\) .*|\2=\1|p' /proc/mounts | tr '\n' ' ')"
echo "daemon $(tr '\0' ' ' <"$daemon/cmdline")"
echo "used $(($(number MemTotal /proc/meminfo) - $(number MemAvailable /proc/meminfo)))"
echo "daemon's most $(number VmHWM "$daemon/status")"
if [ -e /new.txt ]; then
    what=poweroff
else
    what=reboot
fi
# Nothing is synced here.
echo "written" >/new.txt
head -c 3000000 /dev/urandom >/random
echo end
exec $what >/dev/null 2>&1
