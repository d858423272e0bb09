//! The replex virtual machine monitor.

pub mod loader;
