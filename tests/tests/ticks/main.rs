//! Interrupts under load: that the timer's ticks are counted right, and that neither guest nor monitor is starved.
//!
//! [`kernel`] runs the test kernels `ticks` and `ticks64` on the host's clock, and compares what they count with the monitor's
//! account. The others run small programs on a board whose time they set. No check depends on how the host schedules the test.

mod halt;
mod kernel;
mod rig;
mod storm;
