//! The stack on which emitted code runs: host return addresses, one for each guest call that has not returned.

use super::context::Context;

/// Bytes of the stack.
const BYTES: usize = 1 << 20;
/// Bytes that calls may have taken before a run begins; the run's own calls and signal handlers of the host take more.
const LIMIT: u64 = 256 << 10;
/// Polls of one run at most: each call counts one and takes 16 bytes.
pub const MOST_POLLS: u32 = 16 << 10;

/// Memory of the stack.
pub struct HostStack {
    words: Box<[u64]>,
}

impl HostStack {
    /// A stack whose outermost return goes to the host address `dispatcher`.
    pub fn new(dispatcher: u64) -> Self {
        let mut words = vec![0; BYTES / size_of::<u64>()].into_boxed_slice();
        if let Some(last) = words.last_mut() {
            *last = dispatcher;
        }
        Self { words }
    }

    /// The stack pointer when no call is open.
    fn bottom(&self) -> u64 {
        let last = self.words.len() - 1;
        self.words.as_ptr().wrapping_add(last).expose_provenance() as u64
    }

    /// Forgets all calls.
    pub fn reset(&self, context: &mut Context) {
        context.stack = self.bottom();
        context.stack_bottom = context.stack;
    }

    /// Forgets all calls if so many are open that a run's own might not find room.
    pub fn make_room(&self, context: &mut Context) {
        if self.bottom().wrapping_sub(context.stack) > LIMIT {
            self.reset(context);
        }
    }
}
