//! The frequency of the host's time-stamp counter, which is the guest's, too.
//!
//! A kernel that calibrates the TSC against the 8254 gives up when the host is busy: a few long pauses spoil it. So the kernel is
//! told the frequency, measured here against the host's monotonic clock while the kernel is being loaded. The host's wall clock is
//! read at the same moment: who knows the TSC then knows the time, too.

use std::{
    arch::x86_64::_rdtsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A measurement of the TSC's frequency that is under way.
#[derive(Clone, Copy, Debug)]
pub struct TscMeter {
    start: Reading,
}

/// The host's wall clock as a function of the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TscClock {
    /// The TSC at some moment.
    pub tsc: u64,
    /// The time of that moment since 1970-01-01 00:00 UTC (CLOCK_REALTIME).
    pub unix: Duration,
    /// The TSC's frequency in kHz.
    pub khz: u64,
}

/// The readings of all clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    time: Instant,
    wall: SystemTime,
    tsc: u64,
}

/// Shortest time that a measurement takes: two readings, each good to some 50 ns, are then off by 10 parts in a million.
const LEAST: Duration = Duration::from_millis(10);
/// Attempts at a reading that nothing interrupts.
const ATTEMPTS: u32 = 8;

impl TscMeter {
    /// Starts a measurement.
    pub fn start() -> Self {
        Self {
            start: Reading::now(),
        }
    }

    /// Ends the measurement and returns the frequency in kHz. Waits first if too little time has passed.
    pub fn khz(self) -> u64 {
        self.clock().khz
    }

    /// Ends the measurement and returns the clock. Waits first if too little time has passed.
    pub fn clock(self) -> TscClock {
        thread::sleep(LEAST.saturating_sub(self.start.time.elapsed()));
        let end = Reading::now();
        let cycles = u128::from(end.tsc.saturating_sub(self.start.tsc));
        let ns = end.time.duration_since(self.start.time).as_nanos().max(1);
        TscClock {
            tsc: end.tsc,
            unix: end.wall.duration_since(UNIX_EPOCH).unwrap_or_default(),
            // Cycles per nanosecond are GHz.
            khz: u64::try_from(cycles * 1_000_000 / ns).unwrap_or(u64::MAX),
        }
    }
}

impl Reading {
    /// Returns the tightest of a few readings of the TSC and the wall clock between two looks at the monotonic clock.
    fn now() -> Self {
        let attempt = |_| {
            let before = Instant::now();
            let wall = SystemTime::now();
            let tsc = rdtsc();
            let gap = before.elapsed();
            let time = before + gap / 2;
            (gap, Self { time, wall, tsc })
        };
        let first = attempt(0);
        (1..ATTEMPTS)
            .map(attempt)
            .fold(
                first,
                |best, next| if next.0 < best.0 { next } else { best },
            )
            .1
    }
}

fn rdtsc() -> u64 {
    // SAFETY: RDTSC only reads a counter, which every x86-64 processor has.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (one, other) = (TscMeter::start(), TscMeter::start());
        let (one, other) = (one.khz(), other.khz());
        assert!(one > 100_000, "{one} kHz");
        assert!(one.abs_diff(other) < one / 100, "{one} and {other} kHz");
    }

    #[test]
    fn the_clock_is_the_hosts() {
        let meter = TscMeter::start();
        let (before, tsc) = (SystemTime::now(), rdtsc());
        let clock = meter.clock();
        let (after, later) = (SystemTime::now(), rdtsc());
        let at = UNIX_EPOCH + clock.unix;
        assert!(before <= at && at <= after, "{before:?}, {at:?}, {after:?}");
        assert!(tsc <= clock.tsc && clock.tsc <= later);
    }
}
