//! Hostile guests of 64-bit processors: random code, page tables, descriptors and registers, on both engines.
//!
//! ```text
//!   seed ─► memory, registers ─┬─► emulator ───► exit, registers, memory ─┐
//!                              └─► translator ─► exit, registers, memory ─┴─ the same?
//!                                  each fragment is checked
//! ```
//!
//! No guest makes replex panic, none makes it emit code that fails its check, and where the emulator comes to an end, HLT or a triple
//! fault, the translator comes to the same one. The processors of a batch execute many guests one after another, so that
//! translations of one are there when the next one is loaded. By hand, many, or from a guest on that failed:
//!
//! ```text
//! REPLEX_HOSTILE_CASES=100000 REPLEX_HOSTILE_SEED=7 cargo test --release -p tests --test hostile -- --nocapture
//! REPLEX_HOSTILE_FIRST=963 REPLEX_HOSTILE_CASES=1 …
//! ```

mod case;
mod code;
mod layout;
mod machine;
mod structures;

use std::{env, thread, time::Instant};

use case::Case;
use fastrand::Rng;
use machine::{End, Outcome, Processors};
use tests::report::report;

/// Guests, where the environment does not say how many.
const CASES: u64 = 200;
/// Guests that the same processors execute.
const BATCH: u64 = 50;
const SEED: u64 = 1;

/// The number that the environment gives for `REPLEX_HOSTILE_`, `name`.
fn number(name: &str, default: u64) -> u64 {
    let name = format!("REPLEX_HOSTILE_{name}");
    env::var(&name).map_or(default, |value| value.parse().expect(&name))
}

/// Names the guest that a panic comes from.
struct Named {
    guest: u64,
    seed: u64,
}

impl Drop for Named {
    fn drop(&mut self) {
        if thread::panicking() {
            report(&format!(
                "hostile: guest {}, seed {}",
                self.guest, self.seed
            ));
        }
    }
}

/// What came of all guests.
#[derive(Debug, Default)]
struct Counts {
    halted: u64,
    shut_down: u64,
    endless: u64,
    timed: u64,
    stale: u64,
    self_modifying: u64,
    unsupported: u64,
    instructions: u64,
    deliveries: u64,
    fragments: u64,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        self.instructions += outcome.instructions;
        self.deliveries += outcome.deliveries;
        *match outcome.end {
            End::Halt => &mut self.halted,
            End::Shutdown => &mut self.shut_down,
            End::Unsupported => &mut self.unsupported,
            End::Endless => &mut self.endless,
            End::Timed => &mut self.timed,
            End::Stale => &mut self.stale,
            End::SelfModifying => &mut self.self_modifying,
        } += 1;
    }
}

#[test]
fn hostile_guests_do_the_same_on_both_engines_and_no_harm() {
    let (cases, seed) = (number("CASES", CASES), number("SEED", SEED));
    // Whole batches, as a guest may find what those before it have left.
    let guests = number("FIRST", 0)..number("FIRST", 0) + cases;
    let start = Instant::now();
    let mut counts = Counts::default();
    let mut failed = Vec::new();
    for batch in guests.start / BATCH..guests.end.div_ceil(BATCH) {
        let mut processors = Processors::new();
        for number in batch * BATCH..guests.end.min((batch + 1) * BATCH) {
            let _named = Named {
                guest: number,
                seed,
            };
            let case = Case::random(&mut Rng::with_seed(seed << 32 | number));
            match processors.run(&case) {
                Ok(outcome) => counts.add(&outcome),
                Err(difference) => failed.push(format!("guest {number}: {difference}")),
            }
        }
        counts.fragments += processors.verified();
    }
    report(&format!(
        "{cases} hostile guests, seed {seed}, {:.0} s: {} failed, {counts:?}",
        start.elapsed().as_secs_f64(),
        failed.len(),
    ));
    assert!(failed.is_empty(), "seed {seed}: {}", failed.join("\n"));
    // The guests are of use if most of them come to an end, and not at once.
    assert!(counts.halted + counts.shut_down >= cases / 2, "{counts:?}");
    assert!(counts.timed <= cases / 50, "{counts:?}");
    assert!(
        counts.stale + counts.self_modifying <= cases.div_ceil(1000),
        "{counts:?}"
    );
    assert!(counts.instructions >= 50 * cases, "{counts:?}");
    assert!(counts.fragments >= 10 * cases, "{counts:?}");
}
