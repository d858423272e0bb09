//! Multiboot, version 1: how a kernel says where it wants to be, and what it is told.
//!
//! Multiboot Specification, version 0.6.96: 3.1 "OS image format", 3.2 "Machine state", 3.3 "Boot information format". Kernels
//! for Multiboot2 are recognized, and refused.

mod header;
mod info;

pub use header::MultibootError;
pub(super) use header::{Header, find_multiboot2};
pub(super) use info::info;
