//! How many instructions to run between two looks at the clock.
//!
//! Interrupts of timer and RTC, and typed characters, reach the guest between two slices (and at its own port accesses).
//! The budget follows the processor's speed so that a slice takes about [`SLICE`]: short enough that nobody notices, long
//! enough that looking costs nothing.

/// How long a slice should take, in nanoseconds.
const SLICE: u64 = 250_000;
/// Limits of the budget in instructions.
const LEAST: u64 = 1_000;
const MOST: u64 = 10_000_000;

/// The budget of the next slice.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    budget: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { budget: LEAST }
    }
}

impl Pace {
    /// Instructions to run next.
    pub fn budget(self) -> u64 {
        self.budget
    }

    /// A slice that used up its budget took `elapsed` nanoseconds. Changes are gradual: one slow slice (the host was busy
    /// elsewhere) says little.
    pub fn adjust(&mut self, elapsed: u64) {
        let fitting = self.budget.saturating_mul(SLICE) / elapsed.max(1);
        self.budget = fitting
            .clamp(self.budget / 2, self.budget * 2)
            .clamp(LEAST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_settles_at_the_slice() {
        for per_microsecond in [20, 50, 1000] {
            let mut pace = Pace::default();
            for _ in 0..40 {
                pace.adjust(pace.budget() * 1000 / per_microsecond);
            }
            let expected = per_microsecond * SLICE / 1000;
            assert!(
                pace.budget().abs_diff(expected) <= expected / 100,
                "{pace:?}, not {expected}"
            );
        }
    }

    #[test]
    fn no_duration_breaks_it() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.adjust(0);
        }
        assert_eq!(pace.budget(), MOST);
        for _ in 0..100 {
            pace.adjust(u64::MAX);
        }
        assert_eq!(pace.budget(), LEAST);
    }
}
