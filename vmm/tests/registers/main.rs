//! Conformance of a PC's devices with their datasheets, row by row, through ports, lines and time. The tables of the 8254 and
//! the 8259A are those of crate `irq`.

mod i8042;
mod rig;
mod rtc;
mod uart;
