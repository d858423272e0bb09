//! Registers that reset the machine: system control port A (0x92) and the chipset's reset control register (0xcf9).

use crate::bus::{
    Device, DeviceContext, DeviceStateError, IoAccess, Stop, decode_state, encode_state,
};

/// System control port A, port 0x92 (IBM PS/2 Hardware Interface Technical Reference, System Control Port A).
///
/// The A20 gate can be read back, but memory is never masked: no system that boots by the 32-bit protocol closes it.
#[derive(Clone, Debug)]
pub struct ControlPortA {
    value: u8,
}

/// Bit 0: a change to 1 resets the processor.
const FAST_RESET: u8 = 1 << 0;
/// Bit 1: address line 20 is open.
const A20: u8 = 1 << 1;

impl Default for ControlPortA {
    fn default() -> Self {
        Self { value: A20 }
    }
}

impl ControlPortA {
    /// Writes the port. Returns whether the write resets the machine.
    fn set(&mut self, value: u8) -> bool {
        let rising = value & !self.value;
        self.value = value & (FAST_RESET | A20);
        rising & FAST_RESET != 0
    }
}

impl Device for ControlPortA {
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
        self.value = restored(state, FAST_RESET | A20)?;
        Ok(())
    }
}

/// Reset control register, port 0xcf9 (Intel 82371SB PIIX3 datasheet, 2.5.5 RC—Reset Control Register).
#[derive(Clone, Debug, Default)]
pub struct ResetControl {
    value: u8,
}

/// Bit 1: hard instead of soft reset.
const SRST: u8 = 1 << 1;
/// Bit 2: a change to 1 resets.
const RCPU: u8 = 1 << 2;

impl ResetControl {
    /// Writes the register. Returns whether the write resets the machine.
    fn set(&mut self, value: u8) -> bool {
        let rising = value & !self.value;
        self.value = value & (SRST | RCPU);
        rising & RCPU != 0
    }
}

impl Device for ResetControl {
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
        self.value = restored(state, SRST | RCPU)?;
        Ok(())
    }
}

/// Decodes a register's saved value, which has no bits but `writable`.
fn restored(state: &[u8], writable: u8) -> Result<u8, DeviceStateError> {
    match decode_state(state)? {
        value if value & !writable == 0 => Ok(value),
        _ => Err(DeviceStateError::Impossible("the register")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_a_resets_on_the_rising_edge_of_bit_0() {
        let mut port = ControlPortA::default();
        assert_eq!(port.value, A20, "A20 is open at power-on");
        assert!(!port.set(0));
        assert_eq!(port.value, 0);
        assert!(!port.set(A20));
        assert!(port.set(A20 | FAST_RESET));
        assert!(!port.set(A20 | FAST_RESET));
    }

    #[test]
    fn reset_control_resets_on_the_rising_edge_of_bit_2() {
        let mut register = ResetControl::default();
        assert!(!register.set(0x02));
        assert_eq!(register.value, 0x02);
        assert!(register.set(0x06));
        assert!(!register.set(0x06));
        assert!(!register.set(0x0e));
        assert_eq!(register.value, 0x06);
    }
}
