//! [`Pace`]: the number of instructions to run between two looks at the clock.
//!
//! Interrupts of timer and RTC, and typed characters, reach the guest between two slices (and at its own port accesses).
//! The budget follows the processor's speed so that a slice takes about [`SLICE`]: short enough that nobody notices, long
//! enough that looking costs nothing. A slice ends early if the board is going to have an interrupt in it.

/// The intended duration of a slice in nanoseconds.
const SLICE: u64 = 250_000;
/// The limits of the budget in instructions.
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
    /// The number of instructions to run next, if the board is going to have an interrupt in `deadline` nanoseconds.
    pub fn budget(self, deadline: Option<u64>) -> u64 {
        match deadline {
            Some(deadline) if deadline < SLICE => (self.budget * deadline / SLICE).max(LEAST),
            _ => self.budget,
        }
    }

    /// Adapts the budget after a slice that used up `granted` instructions in `elapsed` nanoseconds. Changes are gradual: one
    /// slow slice says little, since the host may have been busy elsewhere, and a short one nothing, since most of its time
    /// is the fixed cost of a slice.
    pub fn adjust(&mut self, granted: u64, elapsed: u64) {
        if granted < self.budget / 4 {
            return;
        }
        let fitting = granted.saturating_mul(SLICE) / elapsed.max(1);
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
                let granted = pace.budget(None);
                pace.adjust(granted, granted * 1000 / per_microsecond);
            }
            let expected = per_microsecond * SLICE / 1000;
            assert!(
                pace.budget(None).abs_diff(expected) <= expected / 100,
                "{pace:?}, not {expected}"
            );
        }
    }

    #[test]
    fn no_duration_breaks_it() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.adjust(pace.budget(None), 0);
        }
        assert_eq!(pace.budget(None), MOST);
        for _ in 0..100 {
            pace.adjust(pace.budget(None), u64::MAX);
        }
        assert_eq!(pace.budget(None), LEAST);
    }

    #[test]
    fn a_slice_ends_with_the_deadline() {
        let mut pace = Pace::default();
        for _ in 0..40 {
            // 1000 instructions a microsecond.
            let granted = pace.budget(None);
            pace.adjust(granted, granted);
        }
        assert_eq!(pace.budget(Some(SLICE / 5)), pace.budget(None) / 5);
        assert_eq!(pace.budget(Some(SLICE)), pace.budget(None));
        assert_eq!(pace.budget(Some(u64::MAX)), pace.budget(None));
        assert_eq!(pace.budget(Some(0)), LEAST);
        let before = pace.budget(None);
        pace.adjust(LEAST, SLICE);
        assert_eq!(pace.budget(None), before, "too short to say anything");
    }
}
