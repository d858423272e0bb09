//! Checks of saved state.
//!
//! A saved state may come from anywhere. `restore` accepts one only if nothing that is done afterwards can panic, hang or
//! break a guarantee of this crate; a state that it accepts need not be one that a guest can bring about.

use thiserror::Error;

/// The error of restoring a saved state with a value that nothing can have brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("saved interrupt state: impossible value of {field}")]
pub struct StateError {
    /// The field with that value, such as "8259A: lowest priority".
    pub field: &'static str,
}

/// Checks `possible`, a condition on `field`.
pub(crate) fn check(possible: bool, field: &'static str) -> Result<(), StateError> {
    if possible {
        Ok(())
    } else {
        Err(StateError { field })
    }
}

/// The greatest count of events that is restored. No machine lives long enough to count as far again.
pub(crate) const MOST_COUNTED: u64 = 1 << 62;
