//! [`more_seeds`]: what `REPLEX_FUZZ_SEED` and `REPLEX_FUZZ_SECONDS` add to a test by fixed seeds.

use std::{
    env,
    time::{Duration, Instant},
};

/// Calls `run` with the seed in `REPLEX_FUZZ_SEED`, hexadecimal, if it is set; then with new ones for as long as
/// `REPLEX_FUZZ_SECONDS` says. Each is printed before, so that it can be repeated.
pub fn more_seeds(run: impl Fn(u64)) {
    let run = |seed| {
        println!("REPLEX_FUZZ_SEED={seed:#x}");
        run(seed);
    };
    if let Ok(seed) = env::var("REPLEX_FUZZ_SEED") {
        let digits = seed.trim_start_matches("0x");
        run(u64::from_str_radix(digits, 16).unwrap());
    }
    let Ok(seconds) = env::var("REPLEX_FUZZ_SECONDS") else {
        return;
    };
    let length = Duration::from_secs(seconds.parse().unwrap());
    let start = Instant::now();
    while start.elapsed() < length {
        run(fastrand::u64(..));
    }
}
