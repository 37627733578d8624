# Runs on the machine, in new mount and pid namespaces: puts together what the lab sees and enters it.
# Arguments: PLACE (here or uml) ROOT RUN SELF HOSTSEAL PREVIOUS MORTAL TERMINAL (yes or no). RUN is the
# directory of this run; HOSTSEAL, PREVIOUS and MORTAL can be empty.
set -eu
place=$1 root=$2 run=$3 self=$4 hostseal=$5 previous=$6 mortal=$7 terminal=$8

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

if [ "$place" = here ]; then
    mount -t sysfs sysfs "$root/sys"
    # Not chroot alone: whoever enters the mount namespace of a host later would find itself outside.
    cd "$root"
    pivot_root . .
    umount -l .
    chroot . env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 LAB_PLACE=here \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /mnt/init
    exit
fi

# The kernel's memory is a file in TMPDIR, which must be a tmpfs that allows execution: /dev/shm is
# often small, or missing. Without HOME the kernel panics. Descriptors 0 and 3 are the console of the
# job, 1 the kernel's own.
mkdir -m 1777 "$root/mnt/memory"
mount -t tmpfs -o size=3g,mode=1777 lab "$root/mnt/memory"
exec 3>&1 > "$run/console" 2>&1
chroot "$root" env -i HOME=/root TMPDIR=/mnt/memory linux.uml \
    mem=2G rootfstype=hostfs rootflags=/ ro init=/mnt/init \
    con=null con0=null,fd:1 con1=fd:0,fd:3 seccomp=on quiet LAB_TERM="${TERM:-dumb}" LAB_TERMINAL="$terminal"
