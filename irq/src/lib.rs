//! Virtual 8259A interrupt controllers, 8254 timer and interrupt lines.
//!
//! Everything here is a pure state machine: no thread, no I/O, no clock. The caller owns time and hands it in, in
//! nanoseconds from an origin of its choice, through [`Chipset::advance`]; device models drive [`Chipset::set_line`]; the
//! processor samples [`Chipset::intr`] and fetches vectors with [`Chipset::acknowledge`].
//!
//! ```text
//!             8254 OUT0 ──── IR0 ┌────────┐
//!   keyboard ─────────────── IR1 │ 8259A  │ INT
//!            ┌────────┐ INT  IR2 │ master ├───────▶ processor INTR
//!   RTC ─ IR0│ 8259A  ├───────── │        │
//!        ... │ slave  │      ... │        │ ◀────── processor INTA
//!         IR7└────────┘      IR7 └────────┘
//! ```
//!
//! * [`lines`]: what an interrupt line is: its number and its level.
//! * [`pic`]: the 8259A pair with the edge/level control registers.
//! * [`pit`]: the 8254 with port 61h.
//! * [`chipset`]: the two wired together as a PC does.
//!
//! All state is plain data (`Clone`, `Debug`, `PartialEq`), so a snapshot is a clone. No input from the guest can panic:
//! every byte at every port has a defined effect.

pub mod chipset;
pub mod lines;
pub mod pic;
pub mod pit;
mod state;

pub use chipset::{Chipset, ChipsetState, Port, TimerStats};
pub use lines::{Irq, Level};
pub use pic::{AlwaysEdgeTriggered, Pic, PicPort, PicState};
pub use pit::{Channel, Pit, PitPort, PitState};
pub use state::StateError;
