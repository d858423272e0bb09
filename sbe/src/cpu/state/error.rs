//! [`CpuStateError`]: the reason why a saved state is refused.

use thiserror::Error;

/// A saved state that no processor can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("saved processor state: {field} cannot be {value:#x}")]
pub struct CpuStateError {
    /// The name of the register or field.
    pub field: &'static str,
    /// The value that it cannot have.
    pub value: u64,
}

impl CpuStateError {
    /// Refuses this value of this field unless `valid`.
    pub(super) fn unless(
        valid: bool,
        field: &'static str,
        value: impl Into<u64>,
    ) -> Result<(), Self> {
        if valid {
            Ok(())
        } else {
            Err(Self {
                field,
                value: value.into(),
            })
        }
    }
}
