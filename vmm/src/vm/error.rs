//! [`VmError`]: the error of making a machine.

use std::io;

use mmu::MemoryError;
use sbe::VcpuError;
use thiserror::Error;

use crate::{kmod::KmodRefusal, loader::LoadError};

/// The error of making a machine.
#[derive(Debug, Error)]
pub enum VmError {
    /// The host did not grant the memory, or its size is out of range.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The processor could not be made.
    #[error("processor: {0}")]
    Processor(VcpuError),
    /// The host did not grant the eventfd by which other threads wake the machine.
    #[error("eventfd: {0}")]
    Control(io::Error),
    /// The host's kernel module is required and cannot be used.
    #[error(transparent)]
    Kmod(#[from] KmodRefusal),
    /// The kernel or a ROM does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl From<VcpuError> for VmError {
    fn from(error: VcpuError) -> Self {
        Self::Processor(error)
    }
}
