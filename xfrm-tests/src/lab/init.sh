#!/bin/sh
# Runs inside the lab: makes the file systems of a fresh machine, then does the job.
if [ "${LAB_PLACE:-uml}" = uml ]; then
    export HOME=/root LANG=C.UTF-8 LAB_PLACE=uml TERM="${LAB_TERM:-dumb}"
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/mnt
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mkdir -p /dev/pts /dev/shm
    ln -s /proc/self/fd /dev/fd
    ln -s fd/0 /dev/stdin
    ln -s fd/1 /dev/stdout
    ln -s fd/2 /dev/stderr
    mount -t devpts devpts /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    modprobe -a veth bridge esp4 esp6 xfrm_user gcm seqiv sch_netem sch_ingress cls_matchall cls_flower \
        act_gact act_nat tun dummy overlay
    # Room for a second of a stream in a test's socket, and in the queue of packets that were decrypted in transport
    # mode: the kernel drops from it without counting where a machine that was stalled sends all at once.
    sysctl -q -w net.core.rmem_max=16777216 net.core.wmem_max=16777216 net.core.netdev_max_backlog=100000
    # What is printed is to arrive as it was written. A person gets an ordinary terminal.
    [ "$LAB_TERMINAL" = yes ] || stty -F /dev/tty1 raw -echo
fi
for directory in /run /tmp /var/tmp /root; do
    mount -t tmpfs tmpfs "$directory"
done
if [ "$LAB_PLACE" = here ]; then
    exec /mnt/self
fi
setsid -c -w /mnt/self < /dev/tty1 > /dev/tty1 2>&1
echo o > /proc/sysrq-trigger
while :; do sleep 1; done
