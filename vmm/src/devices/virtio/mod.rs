//! Virtio devices on PCI (Virtual I/O Device (VIRTIO) Version 1.2).
//!
//! ```text
//!   driver ──► VirtioPci ─── activate, notify, reset ───► VirtioDevice ──► its own threads
//!     ▲           │ registers, features, status                                 │
//!     │           ▼                                                             │
//!     └────── VirtQueue ◄──────────────── requests, one at a time ──────────────┘
//!               └─► Interrupt ─► Doorbell ─► the machine's thread drives INTx
//! ```
//!
//! A new device implements [`VirtioDevice`] and nothing else: its number, its features, its configuration structure, and what
//! it does with a request, a reader of what the driver sent and a writer for the answer. [`Rng`] is the shortest one. One
//! that takes its time serves its queues on a thread of its own ([`Worker`]).
//!
//! A ring or a request that breaks the rules stops the queue and sets DEVICE_NEEDS_RESET (2.1.2 Device Requirements: Device
//! Status Field); the driver's reset makes the device usable again. All DMA goes through [`mmu::Memory`], so what a device
//! writes into code or page tables is seen.

mod blk;
mod common;
mod console;
mod device;
mod fs;
mod interrupt;
mod layout;
mod net;
mod queue;
mod rng;
#[cfg(test)]
mod tests;
mod transport;
mod worker;

pub use blk::{Disk, DiskConfig, DiskConfigError, DiskError, DiskFormat};
pub use console::{ConsoleHandle, ConsolePort, VirtioConsole};
pub use device::VirtioDevice;
pub use fs::{Fs, TagError};
pub use interrupt::Interrupt;
pub use net::Net;
pub use queue::{Malformed, Reader, VirtQueue, Writer};
pub use rng::Rng;
pub use transport::VirtioPci;
pub use worker::Worker;
