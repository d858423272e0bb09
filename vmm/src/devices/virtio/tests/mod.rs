//! Devices as a driver sees them: through I/O ports, rings in memory, and the interrupt line.

mod driver;
mod echo;
mod rings;
mod transport;
