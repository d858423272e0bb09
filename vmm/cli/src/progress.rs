//! Telling the user, on standard error, about what takes longer than a second.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::message::report_progress;

/// What takes no longer than this is not worth a word.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two reports.
const INTERVAL: Duration = Duration::from_secs(1);

/// The unpacking of one kernel.
pub struct Unpacking<'a> {
    kernel: &'a Path,
    next: Instant,
}

impl<'a> Unpacking<'a> {
    /// It begins now.
    pub fn of(kernel: &'a Path) -> Self {
        Self {
            kernel,
            next: Instant::now() + PATIENCE,
        }
    }

    /// So many bytes are unpacked.
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
