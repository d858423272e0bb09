//! The processor's surroundings: I/O ports, memory-mapped devices and the interrupt pins.

use crate::observation::Observation;
use crate::width::Width;
use mmu::GuestPhys;

/// The chipset and the devices behind the processor's pins.
pub trait Bus {
    /// Reads I/O port `port`; bits above `width` are ignored. Absent ports read as ones.
    fn port_read(&mut self, port: u16, width: Width) -> u32;

    /// Writes the low `width` bits of `value` to I/O port `port`.
    fn port_write(&mut self, port: u16, width: Width, value: u32);

    /// Reads `bytes` (1, 2, 4 or 8) from physical memory that is not RAM. Absent memory reads as ones.
    fn mmio_read(&mut self, addr: GuestPhys, bytes: u8) -> u64;

    /// Writes `bytes` (1, 2, 4 or 8) to physical memory that is not RAM.
    fn mmio_write(&mut self, addr: GuestPhys, bytes: u8, value: u64);

    /// The level of the INTR pin, which is sampled when [`crate::Vcpu::run`] starts and after each port or device access.
    fn intr(&self) -> bool;

    /// Runs the interrupt-acknowledge cycle and returns the vector of the interrupt to deliver.
    fn acknowledge(&mut self) -> u8;

    /// Whether a port or device access asked the machine to stop: the processor leaves `run` after the instruction.
    fn stop_requested(&self) -> bool;

    /// Notes what the processor does. The processor calls this only while it is observed; see [`crate::Vcpu::set_observed`].
    fn observe(&mut self, _: &Observation) {}
}

/// A bus without devices: ports and memory read as ones, writes are dropped, nothing interrupts.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyBus;

impl Bus for EmptyBus {
    fn port_read(&mut self, _: u16, _: Width) -> u32 {
        u32::MAX
    }

    fn port_write(&mut self, _: u16, _: Width, _: u32) {}

    fn mmio_read(&mut self, _: GuestPhys, _: u8) -> u64 {
        u64::MAX
    }

    fn mmio_write(&mut self, _: GuestPhys, _: u8, _: u64) {}

    fn intr(&self) -> bool {
        false
    }

    fn acknowledge(&mut self) -> u8 {
        0
    }

    fn stop_requested(&self) -> bool {
        false
    }
}
