//! [`DirtyLog`]: the frames written in an epoch, from one call of [`DirtyLog::clear`] to the next.

use std::mem;
use std::sync::Arc;

use super::{Memory, Timestamp};
use crate::addr::Frame;

/// A log of the frames that anybody has written. A memory can have any number of logs.
///
/// At the start of an epoch all write slots are dropped, so that the first store to each frame after that is seen, and stamps
/// it. A processor that is running drops them a little later; the frames to which it may have stored in between count as
/// written in the new epoch, so that nothing is lost.
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
