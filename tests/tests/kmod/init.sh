#!/bin/sh
# The first program of the virtual machine: loads the module, runs /bin/test, unloads it, and prints the kernel's log since.
# Lines that begin with "@" are for the harness.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
echo 1 >/proc/sys/kernel/printk
for module in /lib/modules/*; do
	insmod "$module"
done
if [ -e /sys/block/zram0 ]; then
	echo 512M >/sys/block/zram0/disksize
	mkswap /dev/zram0 >/dev/null
	swapon /dev/zram0
fi
echo "@ begin" >/dev/kmsg
insmod /lib/replex.ko && echo "@ loaded"
/bin/test
echo "@ status $?"
rmmod replex && echo "@ unloaded"
echo "@ taint $(cat /proc/sys/kernel/tainted)"
echo "@ log"
dmesg | sed -n '/@ begin/,$p'
echo "@ end"
# A kernel without ACPI cannot power off, and QEMU ends either way.
reboot -f
