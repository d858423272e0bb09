//! Virtio devices, driven by the kernels' own modules.

use guest_kernels::Guest;

use crate::program::Boot;

#[test]
fn debian_686_has_random_numbers() {
    random_numbers(Guest::Debian686);
}

#[test]
fn debian_686_pae_has_random_numbers() {
    random_numbers(Guest::Debian686Pae);
}

fn random_numbers(guest: Guest) {
    let Some(boot) = Boot::of(guest) else { return };
    let ended = boot.flag("--rng").exec(
        "cat /sys/class/misc/hw_random/rng_current
         head -c 100000 /dev/hwrng > /tmp/numbers
         wc -c < /tmp/numbers
         gzip -c /tmp/numbers | wc -c
         ls -d /replex/modules 2> /dev/null
         grep -c virtio0 /proc/interrupts",
    );
    assert_eq!(ended.stderr, "");
    let text = ended.text();
    let lines: Vec<_> = text.lines().collect();
    let ["virtio_rng.0", "100000", packed, "1"] = lines[..] else {
        panic!("{text}");
    };
    assert!(packed.parse::<u32>().unwrap() > 100_000, "not compressible");
}
