//! The torture of paging ([`tests::torture`]) in 32-bit and in 64-bit code, on every engine and on QEMU: all outcomes are those of
//! the model, and the hashes, which also take in what the manual leaves open, are the same on all engines.
//!
//! By hand, as long as you like:
//!
//! ```text
//! REPLEX_TORTURE_STEPS=1000000 REPLEX_TORTURE_SEED=7 cargo test --release -p tests --test torture -- --nocapture
//! ```
//!
//! A difference is found by its hash between two checkpoints; REPLEX_TORTURE_INTERVAL=1 makes a checkpoint of every step.

mod engines;
mod qemu;

use std::env;

use guest_kernels::test_kernel::{self, TestKernel, Verdict};
use tests::torture::{Dialect, Script, Width};

/// Steps, where the environment does not say how many.
const STEPS: u32 = 20_000;
/// Steps from checkpoint to checkpoint.
const INTERVAL: u32 = 2_000;
const SEED: u32 = 1;

/// The number that the environment gives for `REPLEX_TORTURE_`, `name`.
fn number(name: &str, default: u32) -> u32 {
    let name = format!("REPLEX_TORTURE_{name}");
    env::var(&name).map_or(default, |value| value.parse().expect(&name))
}

/// The seed of the first script; each test has its own.
fn seed(offset: u64) -> u64 {
    u64::from(number("SEED", SEED)) * 100 + offset
}

fn steps() -> u32 {
    number("STEPS", STEPS)
}

fn script(seed: u64, width: Width, dialect: Dialect) -> Script {
    let (steps, interval) = (steps(), number("INTERVAL", INTERVAL));
    Script::new(seed, steps, interval, width, dialect, Script::memory(steps))
}

/// The kernel that executes scripts of a width.
fn kernel(width: Width) -> &'static TestKernel {
    let mut kernels = test_kernel::all().iter();
    let kernel = kernels.find(|kernel| kernel.name == width.kernel());
    kernel.expect("the kernel")
}

/// Fails unless the kernel printed that every outcome is right, and returns the hashes that it printed.
fn hashes(what: &str, printed: &str, script: &Script) -> Vec<String> {
    if let Some(line) = printed.lines().find(|line| line.starts_with("mismatch ")) {
        let number = line.split([' ', ':']).nth(1).unwrap_or_default();
        let number = usize::from_str_radix(number, 16).unwrap_or_default();
        let lines: Vec<_> = printed
            .lines()
            .filter(|line| line.starts_with("mismatch "))
            .collect();
        panic!("{what}: {}\n{}", lines.join("\n"), script.around(number));
    }
    let verdict = Verdict::parse(printed).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(verdict.failures, [], "{what}");
    let hashes = printed
        .lines()
        .filter_map(|line| line.strip_prefix("hash "));
    hashes.map(str::to_owned).collect()
}

/// Scripts contain what they are for: every kind of access, fault and flush.
#[test]
fn a_script_has_everything() {
    for (width, kinds) in [
        (Width::Narrow, "Push32, edit of a pointer"),
        (
            Width::Wide,
            "Read64, Write64, Modify64, Push64, edit of a pointer, edit of a page map, large page of level 3, \
             use of the direct map, choice of pages that share a slot",
        ),
    ] {
        let memory = Script::memory(20_000);
        let script = Script::new(1, 20_000, 1_000, width, Dialect::Whole, memory);
        let kinds = kinds.split(", ").chain(EXPECTED.split(", "));
        // W, U and I with P, without, and with reserved bits (SDM Vol. 3A, 4.7); a fetch does not write.
        let faults = (0..32u16)
            .filter(|error| error & 0b1001 != 0b1000 && error & 0b1_0010 != 0b1_0010)
            // Nothing but rights refuses with P alone, and a read in ring 0 has all.
            .filter(|error| *error != 1)
            .map(|error| format!("fault {error:#04x}"));
        for what in kinds.map(String::from).chain(faults) {
            let count = script.counts.get(&what).copied().unwrap_or_default();
            assert!(
                count > 0,
                "{width:?}, {count} × {what}: {:#?}",
                script.counts
            );
        }
    }
}

/// What scripts of both widths contain.
const EXPECTED: &str = "Read8, Read16, Read32, Write8, Write16, Write32, Modify32, Fetch, Movs, access across pages, \
    flush by INVLPG, flush by CR3, flush by CR4.PGE, switch of the space, visit of all spaces, edit of a page table, \
    edit of a directory, large page of level 2";
