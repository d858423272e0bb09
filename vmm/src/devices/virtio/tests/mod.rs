//! Devices as a driver sees them: through I/O ports, rings in memory, and the interrupt line.

pub mod driver;
pub mod echo;
mod ends;
pub mod fuzz;
mod hostile;
mod rings;
mod transport;
