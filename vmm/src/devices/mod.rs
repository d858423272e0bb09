//! Devices on I/O ports.
//!
//! Each is a plain state structure: it knows its registers and the time it is told, nothing of ports, other devices or
//! the host. [`crate::board`] wires them to their ports and interrupt lines.

pub mod calendar;
pub mod keyboard;
pub mod reset;
pub mod rtc;
pub mod uart;

pub use keyboard::KeyboardController;
pub use reset::{ControlPortA, Reset, ResetControl};
pub use rtc::Rtc;
pub use uart::Uart;
