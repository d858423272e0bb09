//! The machine's time: nanoseconds since it was switched on.

use std::{
    fmt,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// A monotonic source of nanoseconds, 0 when the machine is switched on. PIT, RTC and the run loop share one, so they
/// agree; the host's clock runs at the rate of its TSC, which the guest reads directly.
pub struct Clock {
    now: Box<dyn Fn() -> u64 + Send>,
}

impl Clock {
    /// The host's monotonic clock, starting now.
    pub fn host() -> Self {
        let start = Instant::now();
        Self::from_fn(move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// A clock that shows what `now` returns, which must never decrease.
    pub fn from_fn(now: impl Fn() -> u64 + Send + 'static) -> Self {
        Self { now: Box::new(now) }
    }

    /// Nanoseconds since the machine was switched on.
    pub fn now(&self) -> u64 {
        (self.now)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({} ns)", self.now())
    }
}

/// The host's time of day in nanoseconds since 1970-01-01 00:00 UTC; 1970 itself if the host's clock is before that.
pub fn host_time_of_day() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}
