#!/bin/busybox sh
# The first program in user space: prepares the tree, then runs /replex/exec or, without one, a shell on the console.
# Either way the machine stops afterwards.

[ -e /bin/sh ] || /bin/busybox --install -s /bin
export PATH=/bin HOME=/root USER=root LOGNAME=root SHELL=/bin/sh
umask 022

mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
# A file system on /tmp or /run would hide what the archives have there.
kept=
for folder in /tmp /run; do
    for file in "$folder"/* "$folder"/.[!.]*; do
        [ -e "$file" ] && kept="$kept $folder" && break
    done
done
mount -a
for folder in $kept; do
    umount "$folder"
done
echo replex > /proc/sys/kernel/hostname
if [ -e /proc/net/dev ]; then
    ifconfig lo up
fi
if [ -d /replex/modules ]; then
    for module in /replex/modules/*.ko; do
        insmod "$module"
    done
    rm -r /replex/modules
fi
if [ -e /sys/class/net/eth0 ]; then
    ifconfig eth0 up
    udhcpc -q -n -i eth0 -s /etc/udhcpc.sh > /dev/null 2>&1 || echo "no address for eth0" >&2
fi

# Mounts the directory of the host that is to be the root of the command or the shell: itself, or read-only below a tmpfs that
# takes the changes.
mount_root() {
    mkdir /sysroot /replex/lower /replex/changes
    if [ "$1" = rw ]; then
        mount -t virtiofs root /sysroot
    else
        mount -t virtiofs -o ro root /replex/lower &&
            mount -t tmpfs tmpfs /replex/changes &&
            mkdir /replex/changes/upper /replex/changes/work &&
            mount -t overlay -o "lowerdir=/replex/lower,upperdir=/replex/changes/upper,workdir=/replex/changes/work" \
                overlay /sysroot
    fi || return
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

mounted=0
export busybox=/bin/busybox
if [ -e /replex/root ]; then
    read -r access < /replex/root
    mount_root "$access"
    mounted=$?
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

# A command must not run without its directories.
if [ -e /replex/exec ] && [ "$mounted" != 0 ]; then
    drain /dev/console
    debug_exit 124
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
