# Hook of dracut: mounts the root, unless it is another one than root=cowcloop:...
# shellcheck shell=sh

case $root in
cowcloop:*)
    cowcloop-root "${root#cowcloop:}" "${NEWROOT:-/sysroot}" "ro${rflags:+,$rflags}"
    ;;
esac
