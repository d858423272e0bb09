//! Tests that cross crates: boots, differential runs against the real CPU; here, what several of them use.

pub mod built;
pub mod differential;
pub mod fetched;
pub mod hang;
pub mod layout;
pub mod report;
pub mod signals;
pub mod torture;
pub mod vm;
pub mod watch;
