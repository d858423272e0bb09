#!/bin/sh
# What udhcpc does with an address: $1 is the event, the rest comes in variables.

case "$1" in
deconfig)
    ifconfig "$interface" 0.0.0.0
    ;;
bound | renew)
    ifconfig "$interface" "$ip" netmask "$subnet"
    for address in $router; do
        route add default gw "$address" dev "$interface"
    done
    for address in $dns; do
        echo "nameserver $address"
    done > /etc/resolv.conf
    ;;
esac
