//! Differential runs against the real CPU.
//!
//! A generated [`case::Case`] runs on the host's processor and on an engine of replex; every defined bit of what comes of
//! it must agree: registers, flags, x87/MMX/SSE state, memory and the exception.

pub mod address;
pub mod campaign;
pub mod case;
pub mod compare;
pub mod coverage;
pub mod encode;
pub mod exclusions;
pub mod flags;
pub mod forms;
pub mod generate;
pub mod layout;
pub mod machine;
pub mod mode;
pub mod native;
pub mod operands;
pub mod placement;
pub mod pointers;
pub mod prepare;
pub mod properties;
pub mod segments;
pub mod selectors;
pub mod shrink;
pub mod strange;
pub mod toolchain;
pub mod transfer;
pub mod values;
pub mod wire;
