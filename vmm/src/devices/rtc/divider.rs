//! The divider chain: the crystal's cycles, divided down to seconds and to the periods of the periodic interrupt.

/// The divider chain. Its own time is in nanoseconds; it says when seconds and periods end, not what time it is.
#[derive(Clone, Copy, Debug)]
pub enum Divider {
    /// The chain's time less the caller's.
    Running { offset: i128 },
    /// The chain's time stands still.
    Held { time: i128 },
}

pub const SECOND: i128 = 1_000_000_000;
const CRYSTAL_HZ: i128 = 32_768;
/// UIP goes up this long before an update.
const UIP_LEAD: i128 = 244_000;
/// The first update after the divider is let go comes after half a second.
const RELEASE_PHASE: i128 = SECOND / 2;

impl Divider {
    /// The chain's time at the caller's time `now`.
    pub fn time(self, now: u64) -> i128 {
        match self {
            Self::Running { offset } => offset + i128::from(now),
            Self::Held { time } => time,
        }
    }

    /// Holds the chain, or lets it go.
    pub fn hold(&mut self, hold: bool, now: u64) {
        let time = self.time(now);
        *self = match (*self, hold) {
            (Self::Running { .. }, true) => Self::Held { time },
            (Self::Held { .. }, false) => Self::Running {
                offset: time - time.rem_euclid(SECOND) + RELEASE_PHASE - i128::from(now),
            },
            (unchanged, _) => unchanged,
        };
    }

    /// The number of seconds that have ended.
    pub fn second(self, now: u64) -> i128 {
        self.time(now).div_euclid(SECOND)
    }

    /// The number of periods of `cycles` of the crystal that have ended.
    pub fn period(self, cycles: i128, now: u64) -> i128 {
        (self.time(now) * CRYSTAL_HZ).div_euclid(cycles * SECOND)
    }

    /// The end of the present second on the caller's clock, unless the chain is held.
    pub fn next_second(self, now: u64) -> Option<i128> {
        self.on_callers_clock((self.second(now) + 1) * SECOND)
    }

    /// The end of the present period of `cycles` on the caller's clock, unless the chain is held.
    pub fn next_period(self, cycles: i128, now: u64) -> Option<i128> {
        let end = (self.period(cycles, now) + 1) * cycles * SECOND;
        self.on_callers_clock((end + CRYSTAL_HZ - 1).div_euclid(CRYSTAL_HZ))
    }

    /// Whether a second ends within 244 µs.
    pub fn is_near_update(self, now: u64) -> bool {
        matches!(self, Self::Running { .. })
            && self.time(now).rem_euclid(SECOND) >= SECOND - UIP_LEAD
    }

    fn on_callers_clock(self, time: i128) -> Option<i128> {
        match self {
            Self::Running { offset } => Some(time - offset),
            Self::Held { .. } => None,
        }
    }
}
