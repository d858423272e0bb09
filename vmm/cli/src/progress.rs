//! Progress of work that takes longer than a second, reported on standard error if that is a terminal.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::message::report_progress;

/// Time that passes before the first report, and between two.
const INTERVAL: Duration = Duration::from_secs(1);

/// The times of reports on work that goes on.
#[derive(Debug)]
pub struct Pace {
    told: Instant,
}

impl Pace {
    /// Begins when the work does.
    pub fn new() -> Self {
        Self {
            told: Instant::now(),
        }
    }

    /// Whether it is time for a report, or `anyway`; if so, it counts as made.
    pub fn is_due(&mut self, anyway: bool) -> bool {
        let due = anyway || self.told.elapsed() >= INTERVAL;
        if due {
            self.told = Instant::now();
        }
        due
    }
}

/// The unpacking of one kernel.
pub struct Unpacking<'a> {
    kernel: &'a Path,
    pace: Pace,
}

impl<'a> Unpacking<'a> {
    /// Begins to watch the unpacking of `kernel`.
    pub fn of(kernel: &'a Path) -> Self {
        Self {
            kernel,
            pace: Pace::new(),
        }
    }

    /// Notes that `bytes` bytes have been unpacked, and reports it when a report is due.
    pub fn done(&mut self, bytes: usize) {
        if self.pace.is_due(false) {
            report_progress(&format!(
                "unpacking {}: {} MiB so far",
                self.kernel.display(),
                bytes >> 20
            ));
        }
    }
}
