//! The architectural state of one processor.

pub mod control;
pub mod eflags;
pub mod fpu;
pub mod model;
pub mod regs;
pub mod segment;
mod state;
mod tags;

pub use state::{Cpu, DescriptorTable, Pending, SegmentLoad};
