//! A test that hangs must fail.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The time after which a test has hung.
pub const HUNG: Duration = Duration::from_secs(300);

/// Waits until `done`.
pub fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < HUNG, "hung");
        thread::sleep(Duration::from_micros(100));
    }
}
