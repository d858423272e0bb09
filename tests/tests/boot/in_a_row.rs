//! Many boots in a row, for what goes wrong once in a while.
//!
//! ```text
//! REPLEX_BOOTS=100 cargo test --release -p tests --test boot -- --ignored --nocapture
//! ```
//!
//! boots the guests in turns, has each do [`workload::SCRIPT`], and prints what each failed boot left and how many failed.

use std::{env, time::Instant};

use guest_kernels::Guest;

use crate::{kernel_log, program::Boot, workload};

/// Environment variable that sets the number of boots.
const BOOTS: &str = "REPLEX_BOOTS";
/// Number of boots if the variable is not set.
const DEFAULT: u32 = 20;

/// Runs `boot` and returns what is wrong with it, if anything is.
fn fault(boot: Boot) -> Option<String> {
    let ended = boot.exec(&format!("{}dmesg", workload::SCRIPT));
    let text = ended.text();
    let left = || {
        format!(
            "{}, standard error:\n{}\nstandard output:\n{text}",
            ended.status, ended.stderr
        )
    };
    match text.strip_prefix(workload::OUTPUT) {
        Some(log) if ended.code() == Some(0) && ended.stderr.is_empty() => {
            kernel_log::fault(log).map(|fault| format!("kernel log: {fault}\n{}", left()))
        }
        _ => Some(left()),
    }
}

#[test]
#[ignore = "long: see the head of this file"]
fn boots_in_a_row() {
    let boots = env::var(BOOTS).map_or(DEFAULT, |count| count.parse().expect(BOOTS));
    let guests = [Guest::Debian686, Guest::Debian686Pae, Guest::DebianAmd64];
    let start = Instant::now();
    let mut failed = 0;
    for (number, guest) in (1..=boots).zip(guests.into_iter().cycle()) {
        let Some(boot) = Boot::of(guest) else {
            return;
        };
        if let Some(fault) = fault(boot) {
            failed += 1;
            println!("boot {number}, {guest}: {fault}");
        }
    }
    println!(
        "{boots} boots in a row, {failed} of them failed, {:.0} s",
        start.elapsed().as_secs_f64()
    );
    assert_eq!(failed, 0, "failed boots");
}
