# What the small root does, by the word test=... on the kernel's command line.

lives() {
    tell "found $(cat /new.txt 2>/dev/null)"
    echo "life $(($(grep -c life /new.txt 2>/dev/null) + 1))" >>/new.txt
    head -c 300000 /dev/urandom >/random
    sync
}

# Each line of the list was synced before it was told.
power() {
    if [ -e /list ]; then
        tell "checked $(sha256sum -c /list 2>/dev/null | grep -c OK) of $(wc -l </list)"
        return
    fi
    number=0
    while :; do
        number=$((number + 1))
        head -c 100000 /dev/urandom >"/file$number"
        sha256sum "/file$number" >>/list
        sync
        tell "synced $number."
    done
}

damaged() {
    for file in /noise/*; do
        cat "$file" >/dev/null || tell "cannot be read: $file"
    done
}

full() {
    dd if=/dev/zero bs=64k count=1 of=/before 2>/dev/null && sync
    head -c 6000000 /dev/urandom >/big
    sync
    tell "still there: $(ls /noise | wc -l)"
}

places() {
    tell "mounted $(sed -n 's|^[^ ]* /run/initramfs/\([^ ]*\) .*|\1|p' /proc/mounts | tr '\n' ' ')"
    tell "noise $(cat /noise/* | sha256sum)"
    echo written >/written && sync
}

tell "root $(sed -n 's|^\([^ ]*\) / \([^ ]*\) .*|\1 \2|p' /proc/mounts)"
tell "daemon $(ps | grep -c ' @[a-z]')"
what=$(sed -n 's/.* test=\([a-z]*\).*/\1/p' /proc/cmdline)
"${what:-lives}"
