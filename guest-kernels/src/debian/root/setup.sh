# The second stage: configures the packages of this tree, which is the root. It runs in a machine.
#
# attributes: MODE UID:GID PATH    what the host could not give to files
# preinst: PACKAGE NAME            scripts that dpkg would have run before it unpacked the packages
set -e
cd /
setup=/.replex-setup
umask 022
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 LANG=C.UTF-8
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true

while read -r mode owner path; do
    # chown takes setuid and setgid away.
    chown -h "$owner" "$path"
    chmod "$mode" "$path"
done < $setup/attributes

# No service starts here (invoke-rc.d(8), "policy-rc.d").
policy=/usr/sbin/policy-rc.d
[ -e $policy ] || printf '#!/bin/sh\nexit 101\n' > $policy
chmod 755 $policy

export DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_DEBUG=0
DPKG_MAINTSCRIPT_ARCH=$(dpkg --print-architecture)
DPKG_RUNNING_VERSION=$(dpkg-query --show --showformat '${Version}' dpkg)
export DPKG_MAINTSCRIPT_ARCH DPKG_RUNNING_VERSION
while read -r package name; do
    echo "Preparing $package ..."
    DPKG_MAINTSCRIPT_PACKAGE=$package "/var/lib/dpkg/info/$name.preinst" install < /dev/null
done < $setup/preinst
unset DPKG_ROOT DPKG_ADMINDIR DPKG_MAINTSCRIPT_NAME DPKG_MAINTSCRIPT_DEBUG DPKG_MAINTSCRIPT_ARCH DPKG_RUNNING_VERSION

dpkg --configure --pending < /dev/null

rm $policy
rm -r $setup
