#!/bin/busybox sh
# Process 1 of Tessera's guest images.
#
# tessera.run=<command>  (kernel command line, percent-encoded): run it with sh, print "tessera.run: status N", power off.
# without it             an interactive shell on the console; it ends by `poweroff`, `reboot` or `halt` (with or without -f).
# tessera.quiet          no banner.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-linux}" ENV=/etc/shrc

/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
hostname tessera

command=
quiet=
for word in $(cat /proc/cmdline); do
    case "$word" in
    tessera.run=*) command=$(printf '%b' "$(echo "${word#tessera.run=}" | sed 's/%/\\x/g')") ;;
    tessera.quiet) quiet=1 ;;
    esac
done

if [ -n "$command" ]; then
    sh -c "$command"
    echo "tessera.run: status $?"
    poweroff -f
fi

[ -n "$quiet" ] || echo "Tessera guest, $(uname -sr): poweroff ends it."
# setsid and cttyhack give the shell a controlling terminal, for job control and Ctrl-C.
setsid cttyhack sh
poweroff -f
