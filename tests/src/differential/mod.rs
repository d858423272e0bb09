//! Differential runs against the real CPU.
//!
//! A generated [`case::Case`] runs on the host's processor and on an engine of replex; every defined bit of what comes of
//! it must agree: registers, flags, x87/MMX/SSE state, memory and the exception.

pub mod case;
pub mod layout;
pub mod native;
