//! [`DirtyLog`]: which frames were written in an epoch, from one call of [`DirtyLog::clear`] to the next.

use std::mem;
use std::sync::Arc;

use super::{Memory, Timestamp};
use crate::addr::Frame;

/// A log of the frames that were written, by whomever. Any number of logs can be kept of one memory.
///
/// An epoch begins with all write slots being withdrawn: the first store to each frame after that is seen, and stamps it. A
/// processor that is running meanwhile takes notice a little later; frames to which it may have stored in between count for
/// the new epoch, so that nothing is lost.
#[derive(Debug)]
pub struct DirtyLog {
    memory: Arc<Memory>,
    since: Timestamp,
}

impl DirtyLog {
    /// Begins the first epoch of a log.
    pub fn new(memory: &Arc<Memory>) -> Self {
        Self {
            memory: Arc::clone(memory),
            since: memory.begin_epoch(),
        }
    }

    /// The frames written in the present epoch so far, in ascending order.
    pub fn frames(&self) -> impl Iterator<Item = Frame> {
        let frames = self.memory.memory_frames();
        frames.filter(|frame| self.memory.written(*frame) > self.since)
    }

    /// Ends the epoch, returns the frames written in it, and begins the next.
    pub fn clear(&mut self) -> Vec<Frame> {
        let since = mem::replace(&mut self.since, self.memory.begin_epoch());
        let frames = self.memory.memory_frames();
        frames
            .filter(|frame| self.memory.written(*frame) > since)
            .collect()
    }
}
