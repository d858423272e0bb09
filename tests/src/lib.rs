//! Tests that cross crates: boots, differential runs against the real CPU.

pub mod differential;
