//! The devices of a PC.
//!
//! Each device knows its registers and the time it is told, but not its place on the bus, other devices or the host. [`pc()`]
//! puts them in their places. A device with an end outside the machine hands that out as a *backend*, which the run loop
//! connects to the console.

pub mod calendar;
mod debug;
mod keyboard;
mod pc;
pub mod pci;
mod reset;
mod rtc;
mod serial;
mod uart;
pub mod virtio;

pub use debug::{DebugBackend, DebugConsole, DebugExit, PostCode};
pub use keyboard::KeyboardController;
pub use pc::{Backends, pc};
pub use reset::ResetRegister;
pub use rtc::Rtc;
pub use serial::{SerialBackend, SerialPort};
