//! [`Stats`]: counts of what the translator has done so far.

use std::time::{Duration, Instant};

/// Counts since the translator was created.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Pages scanned for the first time, or again after their code had changed.
    pub pages: u64,
    /// Fragments made.
    pub fragments: u64,
    /// Bytes of guest code translated.
    pub guest_bytes: u64,
    /// Bytes of host code emitted.
    pub host_bytes: u64,
    /// Time spent translating.
    pub translating: TimeSpent,
    /// Time in which emitted code ran.
    pub executing: TimeSpent,
    /// Branches linked.
    pub links: u64,
    /// Branches, among [`Self::links`], of programs to other pages that are linked without a guard.
    pub direct: u64,
    /// Pages whose code was found changed.
    pub changed: u64,
    /// Pages that were written beside their code, so that it still held.
    pub revalidated: u64,
    /// Times that the code cache was full.
    pub cleared: u64,
    /// Pages evicted because the code cache was full.
    pub evicted: u64,
    /// Windows opened.
    pub windows: u64,
    /// Windows closed because they did not pay.
    pub closed: u64,
    /// Host calls by which windows were made to show or hide pages.
    pub remaps: u64,
    /// Exits by cause.
    pub exits: Exits,
}

/// The time spent on something so far; `None` where that is not measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeSpent(pub Option<Duration>);

impl TimeSpent {
    /// The time at which something begins, if that is measured.
    pub(super) fn begin(self) -> Option<Instant> {
        self.0.map(|_| Instant::now())
    }

    /// Adds the time since it began.
    pub(super) fn end(&mut self, start: Option<Instant>) {
        if let (Some(spent), Some(start)) = (&mut self.0, start) {
            *spent += start.elapsed();
        }
    }
}

/// Exits from emitted code, counted by reason.
#[derive(Clone, Debug, Default)]
pub struct Exits {
    /// The emulator had to execute an instruction.
    pub emulate: u64,
    /// The code for an address was not known.
    pub lookup: u64,
    /// A branch was to be linked.
    pub link: u64,
    /// The budget was used up.
    pub budget: u64,
    /// The FPU's state was to be loaded.
    pub load_fpu: u64,
    /// A table had no slot for an access.
    pub miss: u64,
    /// A window did not show the page of an access.
    pub window: u64,
}
