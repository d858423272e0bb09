//! The file of `--trace`: one line for each event.
//!
//! Collected lines are written whenever the processor pauses, whole ones only. So the file can be read while the machine runs,
//! and a signal that ends the program loses no more than the events of the latest slice. If the file cannot be written any more, the
//! user is told at once, and the machine goes on without it.

use std::{
    fmt::Display,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use vmm::trace::{End, Event, Sink};

use crate::message::complain;

/// Size of the buffer in bytes.
const BUFFER: usize = 64 << 10;

/// A file of events.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    /// The file, or none once a write has failed.
    file: Option<BufWriter<File>>,
    line: Vec<u8>,
}

impl TraceFile {
    /// Creates the file at `path`, or truncates it.
    ///
    /// # Errors
    /// The host's error if that is not possible.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: Some(BufWriter::with_capacity(BUFFER, File::create(path)?)),
            line: Vec::new(),
        })
    }

    /// Writes `line` and its end.
    fn write(&mut self, line: &dyn Display) {
        self.line.clear();
        // A vector takes everything. The buffer takes a line as a whole, and so never gives away part of one.
        let _ = writeln!(self.line, "{line}");
        self.attempt(|file, line| file.write_all(line));
    }

    /// Calls `write` with the current line, unless a call has failed before.
    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<File>, &[u8]) -> io::Result<()>) {
        let Some(file) = &mut self.file else {
            return;
        };
        if let Err(error) = write(file, &self.line) {
            self.file = None;
            complain(&format!(
                "--trace {}: {error}; the machine goes on without",
                self.path.display()
            ));
        }
    }
}

impl Sink for TraceFile {
    fn event(&mut self, event: &Event) {
        self.write(event);
    }

    fn end(&mut self, end: &End<'_>) {
        self.write(end);
    }

    fn pause(&mut self) {
        self.attempt(|file, _| file.flush());
    }
}
