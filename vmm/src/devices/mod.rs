//! The devices of a PC.
//!
//! Each knows its registers and the time it is told, nothing of where it is on the bus, of other devices or of the host. [`pc()`]
//! puts them in their places. What has an end outside the machine gives that away as a *backend*, which the run loop connects
//! to the console.

pub mod calendar;
mod debug;
mod keyboard;
mod pc;
mod reset;
mod rtc;
mod serial;
mod uart;

pub use debug::{DebugBackend, DebugConsole, DebugExit, PostCode};
pub use keyboard::KeyboardController;
pub use pc::{Backends, pc};
pub use reset::{ControlPortA, ResetControl};
pub use rtc::Rtc;
pub use serial::{SerialBackend, SerialPort};
