//! Registers that reset the machine: system control port A (0x92) and the chipset's reset control register (0xcf9).

use crate::bus::{
    Device, DeviceContext, DeviceStateError, IoAccess, Stop, decode_state, encode_state,
};

/// A register of one byte that resets the machine when one of its bits rises.
#[derive(Clone, Debug)]
pub struct ResetRegister {
    value: u8,
    /// The bits that can be read back.
    writable: u8,
    /// The bit that resets.
    trigger: u8,
}

/// System control port A, bit 0: resets the processor.
const FAST_RESET: u8 = 1 << 0;
/// System control port A, bit 1: address line 20 is open.
const A20: u8 = 1 << 1;
/// Reset control register, bit 1: hard instead of soft reset.
const SRST: u8 = 1 << 1;
/// Reset control register, bit 2: resets.
const RCPU: u8 = 1 << 2;

impl ResetRegister {
    /// Creates system control port A, port 0x92 (IBM PS/2 Hardware Interface Technical Reference, System Control Port A).
    ///
    /// The A20 gate can be read back, but memory is never masked: no system that boots by the 32-bit protocol closes it.
    pub fn control_port_a() -> Self {
        Self {
            value: A20,
            writable: FAST_RESET | A20,
            trigger: FAST_RESET,
        }
    }

    /// Creates the reset control register, port 0xcf9 (Intel 82371SB PIIX3 datasheet, 2.5.5 RC—Reset Control Register).
    pub fn reset_control() -> Self {
        Self {
            value: 0,
            writable: SRST | RCPU,
            trigger: RCPU,
        }
    }

    /// Writes the register. Returns whether the write resets the machine.
    fn set(&mut self, value: u8) -> bool {
        let rising = value & !self.value;
        self.value = value & self.writable;
        rising & self.trigger != 0
    }
}

impl Device for ResetRegister {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        self.value.into()
    }

    fn write(&mut self, _: IoAccess, value: u64, context: &mut DeviceContext<'_>) {
        if self.set(value as u8) {
            context.stop(Stop::Reset);
        }
    }

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&self.value)
    }

    fn restore(&mut self, state: &[u8], _: &mut DeviceContext<'_>) -> Result<(), DeviceStateError> {
        let value: u8 = decode_state(state)?;
        if value & !self.writable != 0 {
            return Err(DeviceStateError::Impossible("the register"));
        }
        self.value = value;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_a_resets_on_the_rising_edge_of_bit_0() {
        let mut port = ResetRegister::control_port_a();
        assert_eq!(port.value, A20, "A20 is open at power-on");
        assert!(!port.set(0));
        assert_eq!(port.value, 0);
        assert!(!port.set(A20));
        assert!(port.set(A20 | FAST_RESET));
        assert!(!port.set(A20 | FAST_RESET));
    }

    #[test]
    fn reset_control_resets_on_the_rising_edge_of_bit_2() {
        let mut register = ResetRegister::reset_control();
        assert!(!register.set(0x02));
        assert_eq!(register.value, 0x02);
        assert!(register.set(0x06));
        assert!(!register.set(0x06));
        assert!(!register.set(0x0e));
        assert_eq!(register.value, 0x06);
    }
}
