#!/bin/busybox sh
# The workloads, the same script on every machine: workloads.sh WORKLOAD SIZE
#
# Prints two markers on a line each; what lies between them is timed by whoever reads them:
#   @@begin WORKLOAD@@
#   @@end WORKLOAD STATUS RESULT@@
# RESULT depends on WORKLOAD and SIZE only, so that equal results mean equal work.
# Workloads of devices need a disk /dev/vda of 2 * DISK MiB, a shared directory /share, and a server at port PORT of the host.
set -o pipefail
here=${0%/*}

# Runs "$2 ..." $1 times.
repeat() {
    local left=$1
    shift
    while [ "$left" -gt 0 ]; do
        "$@" || return
        left=$((left - 1))
    done
}

subshell() { (:); }
unpack() { bunzip2 -c < "$here/busybox.bz2"; }
pack() { gzip -9 -c < "$BUSYBOX"; }
touch_memory() { dd if=/dev/zero of=/dev/null bs=16M count=1 2> /dev/null; }

# Lines of numbers, each from 0 to 20010 as good as once in 20011, in an order that looks random.
numbers() {
    local i=0
    while [ "$i" -lt "$1" ]; do
        echo $((i * 7919 % 20011))
        i=$((i + 1))
    done
}

# "records out" of dd, which reports on standard error.
records() { grep 'records out' | cut -d ' ' -f 1; }

unpack_tree() { tar xf "$here/tree.tar" -C /share; }
# What "git status" does, with nothing in the guest's caches: looks at each file of a list, then for others in each folder.
walk() {
    echo 2 > /proc/sys/vm/drop_caches
    local file
    for file in $(cat "$here/tree.files"); do
        [ -s "/share/$file" ] || return
        echo "$file"
    done
    find /share/tree -type f
}

# What a workload needs and is not measured.
prepare() {
    case $1 in
        disk-read) echo 3 > /proc/sys/vm/drop_caches ;;
        walk) [ -e /share/tree ] || unpack_tree ;;
    esac
}

workload() {
    case $1 in
        cmdline) cat /proc/cmdline ;;
        sha256) dd if=/dev/zero bs=64k count=$(($2 * 16)) 2> /dev/null | sha256sum | cut -d ' ' -f 1 ;;
        awk) awk -v n="$2" 'BEGIN { for (i = 0; i < n; i++) x = x * 0.999 + i * 0.5; printf "%.3f\n", x }' ;;
        gzip) repeat "$2" pack | wc -c ;;
        sort) numbers "$2" | sort -n | md5sum | cut -d ' ' -f 1 ;;
        exec) repeat "$2" "${BUSYBOX%/*}/true" && echo "$2" ;;
        subshell) repeat "$2" subshell && echo "$2" ;;
        syscalls) dd if=/dev/zero of=/dev/null bs=1 count="$2" 2>&1 | records ;;
        pipe) dd if=/dev/zero bs=512 count="$2" 2> /dev/null | dd of=/dev/null bs=512 2>&1 | records ;;
        memory) repeat "$2" unpack | wc -c ;;
        faults) repeat "$2" touch_memory && echo "$2" ;;
        disk-read) dd if=/dev/vda of=/dev/null bs=1M count="$2" 2>&1 | records ;;
        disk-write) dd if=/dev/zero of=/dev/vda bs=1M seek="$DISK" count="$2" conv=fsync 2>&1 | records ;;
        random-read | random-write) "$here/probe" "$1" /dev/vda "$DISK" "$2" ;;
        untar) unpack_tree && sync && find /share/tree -type f | wc -l ;;
        walk) repeat "$2" walk | wc -l ;;
        download) "$here/probe" receive "$PORT" "$2" ;;
        upload) "$here/probe" send "$PORT" "$2" ;;
        *) echo "unknown workload $1" ; return 2 ;;
    esac
}

prepare "$1"
echo "@@begin $1@@"
result=$(workload "$1" "$2")
echo "@@end $1 $? $result@@"
