//! Memory above 4 GiB: files in the guest's memory that do not fit below keep what is written to them.

use guest_kernels::Guest;

use crate::program::Boot;

/// 3584 MiB lie below 4 GiB, and the rest above.
const MEMORY: &str = "3840M";
/// Leaves 256 MiB of those below 4 GiB: the kernel does without the rest.
const HIDDEN: &str = "memmap=3328M$256M";
/// Writes 304 MiB, each 8 MiB of them different, and compares them.
const SCRIPT: &str = r#"mkdir /t; mount -t tmpfs -o size=400m tmpfs /t
head -c 8388608 /dev/urandom > /t/0
for i in $(seq 38); do { echo $i; cat /t/0; } > /t/$i || exit 1; done
for i in $(seq 38); do { echo $i; cat /t/0; } | cmp - /t/$i || exit 2; done
dmesg | grep -m 1 -o 'mem 0x0000000100000000-0x000000010fffffff. usable'"#;

#[test]
fn memory_above_4_gib_keeps_what_is_written() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let ended = boot
        .with("--mem", MEMORY)
        .with("--append", HIDDEN)
        .exec(SCRIPT);
    assert_eq!(ended.stderr, "");
    assert_eq!(
        ended.text(),
        "mem 0x0000000100000000-0x000000010fffffff] usable\n"
    );
    assert_eq!(ended.code(), Some(0));
}
