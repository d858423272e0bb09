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

if [ -e /replex/exec ]; then
    stty raw -echo
    stty raw -echo < /dev/ttyS1
    sh /replex/exec < /dev/null > /dev/ttyS1
    status=$?
    drain /dev/ttyS1
    drain /dev/console
    debug_exit "$status"
else
    setsid cttyhack sh -l
fi
poweroff -f
