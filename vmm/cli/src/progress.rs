//! Progress of work that takes longer than a second, reported on standard error if that is a terminal.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::message::report_progress;

/// Time that passes before the first report.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two reports.
const INTERVAL: Duration = Duration::from_secs(1);

/// The unpacking of one kernel.
pub struct Unpacking<'a> {
    kernel: &'a Path,
    next: Instant,
}

impl<'a> Unpacking<'a> {
    /// Begins to watch the unpacking of `kernel`.
    pub fn of(kernel: &'a Path) -> Self {
        Self {
            kernel,
            next: Instant::now() + PATIENCE,
        }
    }

    /// Notes that `bytes` bytes have been unpacked, and reports it when a report is due.
    pub fn done(&mut self, bytes: usize) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + INTERVAL;
            report_progress(&format!(
                "unpacking {}: {} MiB so far",
                self.kernel.display(),
                bytes >> 20
            ));
        }
    }
}
