//! Virtual 8259A interrupt controllers, 8254 timer and interrupt lines.
//!
//! Everything here is a pure state machine without threads, I/O or a clock. The caller owns the clock and passes the
//! time to [`Chipset::advance`], in nanoseconds from an origin of its choice. Device models drive their lines with
//! [`Chipset::set_line`]. The processor samples [`Chipset::intr`] and fetches vectors with [`Chipset::acknowledge`].
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
//! * [`lines`]: the number and the level of an interrupt line.
//! * [`pic`]: the 8259A pair with the edge/level control registers.
//! * [`pit`]: the 8254 with port 0x61.
//! * [`chipset`]: both, wired together as in a PC.
//!
//! Guarantees:
//! * All state is plain data that can be cloned and compared. [`Chipset::save`] makes a [`ChipsetState`] of it, which
//!   serde can write and read; [`Chipset::restore`] accepts one only if it is safe to continue from.
//! * Nothing that a guest does causes a panic: every byte written to every port has a defined effect.

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
