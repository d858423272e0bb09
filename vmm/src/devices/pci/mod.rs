//! PCI: configuration space, functions and the host bridge that they sit behind.
//!
//! ```text
//!   0xcf8 0xcfc ──► PciHost ─┬─► 00:00.0  host bridge
//!   I/O BARs ──────►         ├─► 00:01.0  PciFunction ─┐
//!   IRQ 11, 10, 9, 5 ◄───────┴─► 00:02.0  PciFunction ─┴─ Doorbell ◄── other threads
//! ```
//!
//! There is one bus without bridges. The host does a firmware's part, too: it gives each function its place, its I/O ports
//! and its interrupt line. Interrupts are INTx alone: shared, level triggered lines of the 8259A.

mod config;
mod doorbell;
mod function;
mod host;
#[cfg(test)]
mod tests;

pub use config::{ConfigSpace, Identity};
pub use doorbell::Doorbell;
pub use function::PciFunction;
pub use host::{NoSlot, PciHost};
