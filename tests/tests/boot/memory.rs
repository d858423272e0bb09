//! Memory above 4 GiB: files in the guest's memory that do not fit below keep what is written to them.
//!
//! `REPLEX_MEMORY_MIB=5120` has a 64-bit guest write and check so many MiB, instead of [`MIB`], in a machine that has as many above
//! 4 GiB.

use std::env;

use guest_kernels::Guest;

use crate::program::Boot;

/// What lies below 4 GiB of a memory that is larger, in MiB. The rest is above.
const BELOW: u64 = 3584;
/// The environment variable with the MiB that the 64-bit guest writes.
const SIZE: &str = "REPLEX_MEMORY_MIB";
/// The MiB that the 64-bit guest writes unless that variable says otherwise.
const MIB: u64 = 1024;
/// The size of the random bytes in each file, in MiB.
const FILE: u64 = 8;

/// Writes files until they have the MiB wanted, and checks what is in them. They have the same random bytes behind a line that is
/// one byte longer in each, so that no two of their pages are alike.
fn script(mib: u64) -> String {
    let (files, bytes) = (mib / FILE, FILE << 20);
    format!(
        r#"mkdir /t; mount -t tmpfs -o size=100% tmpfs /t
head -c {bytes} /dev/urandom > /tmp/random
sum=$(md5sum < /tmp/random)
line() {{ printf "%0$1d" 0; }}
for i in $(seq {files}); do {{ line $i; echo; cat /tmp/random; }} > /t/$i || exit 1; done
for i in $(seq {files}); do
    {{ read -r line; found=$(md5sum); }} < /t/$i
    [ "$line $found" = "$(line $i) $sum" ] || exit 2
done
dmesg | grep -m 1 -o 'mem 0x0000000100000000-.* usable'"#
    )
}

/// Checks that `guest` keeps what it writes to `mib` MiB of memory of a machine with `above` MiB above 4 GiB. `append` is for its
/// kernel.
fn check(guest: Guest, mib: u64, above: u64, append: &str) {
    let Some(boot) = Boot::of(guest) else {
        return;
    };
    let ended = boot
        .with("--mem", &format!("{}M", BELOW + above))
        .with("--append", append)
        .exec(&script(mib));
    assert_eq!(ended.stderr, "");
    let last = (1 << 32) + (above << 20) - 1;
    assert_eq!(
        ended.text(),
        format!("mem 0x0000000100000000-{last:#018x}] usable\n")
    );
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn memory_above_4_gib_keeps_what_a_32_bit_guest_writes() {
    // Leaves 256 MiB of those below 4 GiB: the kernel does without the rest.
    check(Guest::Debian686Pae, 304, 256, "memmap=3328M$256M");
}

#[test]
fn memory_above_4_gib_keeps_what_a_64_bit_guest_writes() {
    let mib = match env::var(SIZE) {
        Ok(mib) => mib.parse().unwrap(),
        Err(_) => MIB,
    };
    check(Guest::DebianAmd64, mib, mib, "");
}
