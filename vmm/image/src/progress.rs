//! The progress of an image's way into the cache.

use std::fmt;
use std::io::{self, Read};

/// A step on an image's way into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The archive, which is compressed as a whole, is being uncompressed.
    Uncompressing,
    /// Another process is making the same image.
    Waiting,
    /// A layer is being read.
    Reading {
        /// The layer's number, from 1.
        layer: usize,
        /// The number of layers.
        layers: usize,
    },
    /// The squashfs image is being written.
    Writing,
}

/// A report on a step. Its `Display` is one line for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The step.
    pub step: Step,
    /// The bytes that have been read for this step.
    pub done: u64,
    /// The bytes to read for this step; 0 if nobody knows.
    pub total: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Uncompressing => f.write_str("uncompressing the archive")?,
            Step::Waiting => {
                return f.write_str("waiting for another process that makes the same image");
            }
            Step::Reading { layer, layers } => write!(f, "reading layer {layer} of {layers}")?,
            Step::Writing => f.write_str("writing the squashfs image")?,
        }
        let megabytes = |bytes: u64| bytes / 1_000_000;
        write!(
            f,
            " ({} of {} MB)",
            megabytes(self.done),
            megabytes(self.total)
        )
    }
}

/// The receiver of reports.
pub(crate) type Report<'a> = &'a mut dyn FnMut(&Progress);

/// A count of a step's bytes that reports each mebibyte.
pub(crate) struct Meter<'a> {
    progress: Progress,
    reported: u64,
    report: Report<'a>,
}

impl<'a> Meter<'a> {
    /// Bytes between two reports.
    const EVERY: u64 = 1 << 20;

    /// Starts a step of `total` bytes and reports it.
    pub(crate) fn start(step: Step, total: u64, report: Report<'a>) -> Self {
        let progress = Progress {
            step,
            done: 0,
            total,
        };
        report(&progress);
        Self {
            progress,
            reported: 0,
            report,
        }
    }

    /// Counts `bytes` more.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.progress.done += bytes;
        if self.progress.done - self.reported >= Self::EVERY {
            self.reported = self.progress.done;
            (self.report)(&self.progress);
        }
    }
}

impl<'a> Meter<'a> {
    /// Returns a reader that counts what is read through it.
    pub(crate) fn reader<R: Read>(&mut self, inner: R) -> Metered<'_, 'a, R> {
        Metered { inner, meter: self }
    }
}

/// A reader that counts what is read through it.
pub(crate) struct Metered<'m, 'a, R> {
    inner: R,
    meter: &'m mut Meter<'a>,
}

impl<R: Read> Read for Metered<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.meter.add(read as u64);
        Ok(read)
    }
}
