# Hook of dracut: root=cowcloop:IMAGE[,OPTION...] on the kernel's command line is a root.
# shellcheck shell=sh disable=SC2034

[ -n "$root" ] || root=$(getarg root=)
case $root in
cowcloop:http://* | cowcloop:https://* | cowcloop:nbd://*)
    rootok=1
    # With this dracut sets up the network, and says so by the program cowclooproot.
    netroot=$root
    # A network that does not come is not waited for for ever: the console says what is missing.
    read -r uptime _ </proc/uptime
    cat >"${hookdir?}/initqueue/finished/cowcloop.sh" <<END
[ -e /tmp/cowcloop.network ] || grep -qs OPER_STATE=routable /run/systemd/netif/state || {
    read -r uptime _ </proc/uptime
    [ "\${uptime%.*}" -ge $((${uptime%.*} + 60)) ]
}
END
    ;;
cowcloop:*) rootok=1 ;;
esac
