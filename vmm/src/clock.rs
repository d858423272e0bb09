//! The machine's time: nanoseconds since it was switched on, not counting the time between a save and a restore.

use std::{
    fmt,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// A monotonic source of nanoseconds, 0 when the machine is switched on. PIT, RTC and the run loop share one, so they
/// agree; the host's clock runs at the rate of its TSC, which the guest reads directly.
pub struct Clock {
    source: Box<dyn Fn() -> u64 + Send>,
    /// The source's time at which the machine was switched on, modulo 2⁶⁴.
    origin: u64,
}

impl Clock {
    /// Creates a clock that starts now and follows the host's monotonic clock.
    pub fn host() -> Self {
        let start = Instant::now();
        Self::from_fn(move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Creates a clock that shows what `now` returns, which must never decrease.
    pub fn from_fn(now: impl Fn() -> u64 + Send + 'static) -> Self {
        Self {
            source: Box::new(now),
            origin: 0,
        }
    }

    /// Sets the clock to `now`, from where it continues.
    pub fn set(&mut self, now: u64) {
        self.origin = (self.source)().wrapping_sub(now);
    }

    /// The time in nanoseconds since the machine was switched on.
    pub fn now(&self) -> u64 {
        (self.source)().wrapping_sub(self.origin)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({} ns)", self.now())
    }
}

/// The host's time of day in nanoseconds since 1970-01-01 00:00 UTC; 0 if the host's clock shows an earlier time.
pub fn host_time_of_day() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    #[test]
    fn it_goes_on_from_where_it_is_set() {
        let time = Arc::new(AtomicU64::new(1000));
        let source = Arc::clone(&time);
        let mut clock = Clock::from_fn(move || source.load(Ordering::Relaxed));
        assert_eq!(clock.now(), 1000);
        for (now, later) in [(5000, 5001), (3, 4), (u64::MAX - 1, u64::MAX)] {
            clock.set(now);
            assert_eq!(clock.now(), now);
            time.fetch_add(1, Ordering::Relaxed);
            assert_eq!(clock.now(), later);
        }
    }
}
