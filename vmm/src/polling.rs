//! [`Polling`]: how long a thread looks for its work before it sleeps.
//!
//! To sleep and be woken costs a thread some ten microseconds of the host's, and a request that a guest waits for takes two threads:
//! the device's and the processor's. So a thread that was woken soon after it had gone to sleep looks for a while first, next time,
//! and one that has slept for long does not (the way of KVM's halt polling, Linux `Documentation/virt/kvm/halt-polling.rst`).

use std::{
    hint,
    time::{Duration, Instant},
};

/// The longest time that a thread looks for work.
const MOST: Duration = Duration::from_micros(100);
/// The shortest one, if any.
const LEAST: Duration = Duration::from_micros(10);

/// The state of one thread that waits for work again and again.
#[derive(Debug, Default, Clone, Copy)]
pub struct Polling {
    length: Duration,
}

impl Polling {
    /// Looks whether there is work, from `start` on for as long as it pays, and returns whether there is. The processor is not yielded
    /// meanwhile: on a busy host that can take a whole slice of another thread's.
    pub fn look(&self, start: Instant, mut is_there: impl FnMut() -> bool) -> bool {
        loop {
            if is_there() {
                return true;
            }
            if start.elapsed() >= self.length {
                return false;
            }
            hint::spin_loop();
        }
    }

    /// Learns that work came after a time of `waited`, whether the thread slept or not.
    pub fn adapt(&mut self, waited: Duration) {
        if waited > MOST {
            self.length = Duration::ZERO;
        } else if waited > self.length {
            self.length = (self.length * 2).clamp(LEAST, MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_make_a_thread_look_for_longer_and_long_ones_not_at_all() {
        let mut polling = Polling::default();
        for expected in [10, 20, 40, 80, 100, 100] {
            polling.adapt(MOST);
            assert_eq!(polling.length, Duration::from_micros(expected));
        }
        polling.adapt(LEAST);
        assert_eq!(polling.length, MOST);
        polling.adapt(MOST + LEAST);
        assert_eq!(polling.length, Duration::ZERO);
    }

    #[test]
    fn work_is_looked_for_once_at_least() {
        let polling = Polling::default();
        let start = Instant::now();
        assert!(polling.look(start, || true));
        assert!(!polling.look(start, || false));
    }
}
