# Runs on the machine, in new mount and pid namespaces: puts together what the lab sees and enters it.
# Arguments: PLACE (here or uml) ROOT RUN SELF HOSTSEAL PREVIOUS MORTAL ETCD KMS_AWS MINISTACK TERMINAL (yes or no) TURN (a
# number). RUN is the directory of this run; those from HOSTSEAL to MINISTACK can be empty.
set -eu
place=$1 root=$2 run=$3 self=$4 hostseal=$5 previous=$6 mortal=$7 etcd=$8 kms_aws=$9 ministack=${10}
terminal=${11} turn=${12}

if [ "$place" = here ]; then
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
fi
mount --rbind /dev "$root/dev"
# In a container that hides parts of /proc a new one is refused; its own will do.
mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"

# Everything of this run lies under /mnt, in memory. The root itself is only read.
mount -t tmpfs -o mode=0755 lab "$root/mnt"
cp "$run/init" "$run/job.json" "$root/mnt/"
chmod 0755 "$root/mnt/init"
: > "$root/mnt/self"
mount --bind "$self" "$root/mnt/self"
bring() {
    if [ -n "$1" ]; then
        : > "$root/mnt/$2"
        mount --bind "$1" "$root/mnt/$2"
    fi
}
bring "$hostseal" hostseal
bring "$previous" hostseal-previous
bring "$mortal" hostseal-mortal
bring "$etcd" hostseal-etcd
bring "$kms_aws" kms-aws
if [ -n "$ministack" ]; then
    mkdir "$root/mnt/ministack"
    mount --bind "$ministack" "$root/mnt/ministack"
fi

if [ "$place" = here ]; then
    mount -t sysfs sysfs "$root/sys"
    # Not chroot alone: whoever enters the mount namespace of a host later would find itself outside.
    cd "$root"
    pivot_root . .
    umount -l .
    chroot . env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 LAB_PLACE=here \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/mnt /mnt/init
    exit
fi

# The kernel's memory is a file in TMPDIR, which must be a tmpfs that allows execution: /dev/shm is
# often small, or missing. Without HOME the kernel panics. Descriptors 0 and 3 are the console of the
# job, 1 the kernel's own.
mkdir -m 1777 "$root/mnt/memory"
memory=${HOSTSEAL_LAB_MEMORY:-2}
mount -t tmpfs -o size=$((memory + 1))g,mode=1777 lab "$root/mnt/memory"
exec 3>&1 > "$run/console" 2>&1
# Its one processor is threads and processes here, of which one runs at a time and hands over to the next: on
# one processor of the machine, whichever, that is several times as fast as across two. Runs side by side take turns.
processor=$(awk -v turn="$turn" '/^Cpus_allowed_list/ {
    ranges = split($2, range, ",")
    for (i = 1; i <= ranges; i++) {
        ends = split(range[i], end, "-")
        for (cpu = end[1]; cpu <= end[ends]; cpu++) allowed[count++] = cpu
    }
    print allowed[turn % count]
}' /proc/self/status)
taskset -c "$processor" chroot "$root" env -i HOME=/root TMPDIR=/mnt/memory linux.uml \
    mem=${memory}G rootfstype=hostfs rootflags=/ ro init=/mnt/init \
    con=null con0=null,fd:1 con1=fd:0,fd:3 seccomp=on quiet LAB_TERM="${TERM:-dumb}" LAB_TERMINAL="$terminal"
