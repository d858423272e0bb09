//! Checks of saved state.
//!
//! A saved state may come from anywhere. `restore` accepts it only if nothing that is done afterwards can panic, hang
//! or break a guarantee of this crate. An accepted state need not be one that a guest can produce.

use thiserror::Error;

/// The error of restoring a saved state in which a field has an impossible value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("saved interrupt state: impossible value of {field}")]
pub struct StateError {
    /// The name of the field, such as "8259A: lowest priority".
    pub field: &'static str,
}

/// Returns an error that names `field` unless its value is `possible`.
pub(crate) fn check(possible: bool, field: &'static str) -> Result<(), StateError> {
    if possible {
        Ok(())
    } else {
        Err(StateError { field })
    }
}

/// The greatest count of events that is accepted. No machine runs long enough to count that far again.
pub(crate) const MOST_COUNTED: u64 = 1 << 62;
