//! [`PciFunction`]: the interface of a function behind the host bridge.

use std::sync::Arc;

use mmu::Memory;

use super::config::ConfigSpace;
use crate::bus::DeviceStateError;

/// A function of PCI: a device's configuration registers, I/O ports and interrupt.
///
/// It is called on the thread that the machine runs on, with guest memory for DMA. Other threads of the device change shared
/// state and ring the [`super::Doorbell`].
pub trait PciFunction: Send {
    /// The configuration registers.
    fn config(&self) -> &ConfigSpace;

    /// The configuration registers, to be written.
    fn config_mut(&mut self) -> &mut ConfigSpace;

    /// Reads up to four bytes of configuration space.
    fn config_read(&mut self, offset: usize, bytes: usize, _memory: &Arc<Memory>) -> u32 {
        self.config().read(offset, bytes)
    }

    /// Writes up to four bytes of configuration space.
    fn config_write(&mut self, offset: usize, bytes: usize, value: u32, _memory: &Arc<Memory>) {
        self.config_mut().write(offset, bytes, value);
    }

    /// Reads a register in a BAR. Bits above the access's width are ignored.
    fn bar_read(&mut self, _bar: usize, _offset: u64, _bytes: u8, _memory: &Arc<Memory>) -> u32 {
        u32::MAX
    }

    /// Writes a register in a BAR. Bits of `value` above the access's width are zero.
    fn bar_write(
        &mut self,
        _bar: usize,
        _offset: u64,
        _bytes: u8,
        _value: u32,
        _memory: &Arc<Memory>,
    ) {
    }

    /// Whether an interrupt is pending. The line is driven high while it is, unless software has disabled that.
    fn interrupt(&self) -> bool {
        false
    }

    /// Brings the function up to the present. Called after the doorbell has rung.
    fn advance(&mut self, _memory: &Arc<Memory>) {}

    /// Saves the state, without the configuration registers.
    ///
    /// # Errors
    /// If it cannot be saved.
    fn save(&self) -> Result<Vec<u8>, DeviceStateError>;

    /// Restores a saved state, which may come from an untrusted source. The configuration registers are restored already.
    ///
    /// # Errors
    /// If the state cannot be one of this function.
    fn restore(&mut self, state: &[u8], memory: &Arc<Memory>) -> Result<(), DeviceStateError>;
}
