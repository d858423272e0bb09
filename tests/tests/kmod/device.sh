# replex where the device is not there, is of another version, may not be opened, and where it is there. The module is loaded
# before and after.
rmmod replex
step absent_require $tiny --kmod require
step absent_auto $tiny

insmod /lib/other.ko
step version_require $tiny --kmod require
step version_auto $tiny
rmmod replex

insmod /lib/replex.ko
chmod 600 /dev/replex
step forbidden_require su nobody -c "$tiny --kmod require"
step forbidden_auto su nobody -c "$tiny"

step tiny $tiny --kmod require --stats

# Debian boots meanwhile.
boot() {
	$debian --kmod require --stats --exec "$(cat /guest/command)" </dev/null >/tmp/output 2>/tmp/errors
	echo $? >/tmp/status
}
boot &
until [ -e /tmp/status ] || [ "$(cat /sys/module/replex/refcnt)" != 0 ]; do
	sleep 1
done
step unload rmmod replex
wait
step debian_output cat /tmp/output
step debian_errors cat /tmp/errors
step debian_status cat /tmp/status
