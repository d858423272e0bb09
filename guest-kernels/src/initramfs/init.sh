#!/bin/busybox sh
# The first program in user space: prepares the tree, then runs the command of /replex/command, the script /replex/exec or,
# without both, a shell on the console. The machine stops afterwards.

[ -e /bin/sh ] || /bin/busybox --install -s /bin
export PATH=/bin HOME=/root USER=root LOGNAME=root SHELL=/bin/sh
umask 022

# File systems, modules, and the network as far as its address is known.
/replex/prepare
if [ -e /sys/class/net/eth0 ] && [ ! -e /replex/network ]; then
    ifconfig eth0 up
    udhcpc -q -n -i eth0 -s /etc/udhcpc.sh > /dev/null 2>&1 || echo "no address for eth0" >&2
fi

# Mounts the root of the command or the shell: a directory of the host ("rw"), or such a directory ("ro") or the file system on a
# disk ("squashfs DISK") read-only below a tmpfs that takes the changes.
mount_root() {
    mkdir /sysroot /replex/lower /replex/changes
    case "$1" in
    rw) mount -t virtiofs root /sysroot ;;
    ro) mount -t virtiofs -o ro root /replex/lower && mount_overlay ;;
    squashfs) mount -t squashfs -o ro "/dev/$2" /replex/lower && mount_overlay ;;
    esac || return
    for folder in dev proc run sys; do
        [ -d /sysroot/$folder ] || mkdir /sysroot/$folder || return
    done
    mkdir -p /dev/shm
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm &&
        mount -o rbind /dev /sysroot/dev &&
        mount -o bind /proc /sysroot/proc &&
        mount -o bind /sys /sysroot/sys &&
        mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /sysroot/run || return
    # What must work there whatever there is.
    mkdir /sysroot/run/replex
    cp /bin/busybox /sysroot/run/replex
    for file in exec mounts; do
        [ ! -e /replex/$file ] || cp /replex/$file /sysroot/run/replex
    done
    shell=/bin/sh
    [ -x /sysroot/bin/sh ] || shell="/run/replex/busybox sh"
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SHELL=/bin/sh
}

mount_overlay() {
    mount -t tmpfs tmpfs /replex/changes &&
        mkdir /replex/changes/upper /replex/changes/work &&
        mount -t overlay -o "lowerdir=/replex/lower,upperdir=/replex/changes/upper,workdir=/replex/changes/work" \
            overlay /sysroot
}

# Shows the root ($1) the names that this machine knows. What is a link there, or missing, is replaced where that changes nothing
# of the host's; of the host's, a missing file is made, as a place for the mount.
share_names() {
    for file in /etc/hosts /etc/resolv.conf; do
        [ -e $file ] || continue
        if [ -L /sysroot$file ]; then
            [ "$1" != rw ] || continue
            rm /sysroot$file
        fi
        if [ ! -e /sysroot$file ]; then
            mkdir -p /sysroot/etc
            : > /sysroot$file || continue
        fi
        mount -o bind $file /sysroot$file
    done
}

mounted=0
export busybox=/bin/busybox
if [ -e /replex/root ]; then
    read -r kind disk < /replex/root
    mount_root "$kind" "$disk"
    mounted=$?
    if [ "$mounted" = 0 ] && [ -e /replex/command ]; then
        share_names "$kind"
    fi
    busybox=/run/replex/busybox
fi
if [ -e /replex/mounts ] && [ "$mounted" = 0 ]; then
    if [ -e /replex/root ]; then
        chroot /sysroot $busybox sh /run/replex/mounts
    else
        sh /replex/mounts
    fi
    mounted=$?
fi
unset busybox
cd /root

if [ -e /replex/winsize ]; then
    read -r rows columns < /replex/winsize
    stty rows "$rows" columns "$columns"
fi

# Waits until everything written to a terminal is sent, because stty changes settings only after that.
drain() {
    stty raw <> "$1" 2> /dev/null
}

# Writes a byte to I/O port 0xf4, which ends the virtual machine with that exit status.
debug_exit() {
    printf "\\$(printf %03o "$1")" | dd of=/dev/port bs=1 seek=244 conv=notrunc 2> /dev/null
}

# Takes off the directories of the host, so that all that was written is there.
release() {
    if [ -e /replex/mounts ] || [ -e /replex/root ]; then
        cd /
        umount -a -t virtiofs 2> /dev/null || sync
    fi
}

# Sets $port to the device of the console's port called $1. The driver learns the names a little later than it is inserted.
find_port() {
    for again in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        for folder in /sys/class/virtio-ports/*; do
            [ -e "$folder/name" ] && read -r name < "$folder/name" && [ "$name" = "$1" ] || continue
            port=/dev/${folder##*/}
            return
        done
        sleep 0.05
    done
    echo "no port $1: has the kernel a driver for virtio consoles?"
    return 1
}

# Runs the command of /replex/command in the root $1, and sets $status to "exit STATUS" or "signal NUMBER". The command may do
# anything to the files of this script, and end /replex/launch; then it has ended by the same signal.
run_command() {
    find_port replex.status || return
    exec 6<> "$port"
    if [ -e /replex/terminal ]; then
        status=$(/replex/launch /replex/command "$1" /dev/hvc0 6>&-)
    else
        find_port replex.stdin && exec 3< "$port" || return
        find_port replex.stdout && exec 4> "$port" || return
        find_port replex.stderr && exec 5> "$port" || return
        status=$(/replex/launch /replex/command "$1" 6>&-)
    fi
    ended=$?
    [ "$ended" -le 128 ] || status="signal $((ended - 128))"
    [ -n "$status" ]
}

# A command must not run without its directories.
if [ "$mounted" != 0 ] && { [ -e /replex/exec ] || [ -e /replex/command ]; }; then
    drain /dev/console
    debug_exit 124
fi
if [ -e /replex/command ]; then
    root=/
    [ ! -e /replex/root ] || root=/sysroot
    if ! run_command "$root"; then
        drain /dev/console
        debug_exit 124
    fi
    release
    [ ! -e /sys/block/vda ] || sync
    echo "$status" >&6
    # The host ends the machine when it has read this.
    read -r status <&6
    poweroff -f
fi
if [ -e /replex/exec ]; then
    stty raw -echo
    stty raw -echo < /dev/ttyS1
    if [ -e /replex/root ]; then
        chroot /sysroot $shell /run/replex/exec < /dev/null > /dev/ttyS1
    else
        sh /replex/exec < /dev/null > /dev/ttyS1
    fi
    status=$?
    release
    drain /dev/ttyS1
    drain /dev/console
    debug_exit "$status"
else
    if [ -e /replex/root ] && [ "$mounted" = 0 ]; then
        setsid cttyhack chroot /sysroot $shell -l
    else
        setsid cttyhack sh -l
    fi
    release
fi
poweroff -f
