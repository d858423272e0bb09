//! Registers that reset the machine: system control port A (92h) and the chipset's reset control register (CF9h).

/// A device asks for the machine to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset;

/// System control port A, port 92h (IBM PS/2 Hardware Interface Technical Reference, System Control Port A).
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
    /// Reads the port.
    pub fn read(&self) -> u8 {
        self.value
    }

    /// Writes the port.
    pub fn write(&mut self, value: u8) -> Option<Reset> {
        let rising = value & !self.value;
        self.value = value & (FAST_RESET | A20);
        (rising & FAST_RESET != 0).then_some(Reset)
    }
}

/// Reset control register, port CF9h (Intel 82371SB PIIX3 datasheet, 2.5.5 RC—Reset Control Register).
#[derive(Clone, Debug, Default)]
pub struct ResetControl {
    value: u8,
}

/// Bit 1: hard instead of soft reset.
const SRST: u8 = 1 << 1;
/// Bit 2: a change to 1 resets.
const RCPU: u8 = 1 << 2;

impl ResetControl {
    /// Reads the register.
    pub fn read(&self) -> u8 {
        self.value
    }

    /// Writes the register.
    pub fn write(&mut self, value: u8) -> Option<Reset> {
        let rising = value & !self.value;
        self.value = value & (SRST | RCPU);
        (rising & RCPU != 0).then_some(Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_a_resets_on_the_rising_edge_of_bit_0() {
        let mut port = ControlPortA::default();
        assert_eq!(port.read(), A20, "A20 is open at power-on");
        assert_eq!(port.write(0), None);
        assert_eq!(port.read(), 0);
        assert_eq!(port.write(A20), None);
        assert_eq!(port.write(A20 | FAST_RESET), Some(Reset));
        assert_eq!(port.write(A20 | FAST_RESET), None);
    }

    #[test]
    fn reset_control_resets_on_the_rising_edge_of_bit_2() {
        let mut register = ResetControl::default();
        assert_eq!(register.write(0x02), None);
        assert_eq!(register.read(), 0x02);
        assert_eq!(register.write(0x06), Some(Reset));
        assert_eq!(register.write(0x06), None);
        assert_eq!(register.write(0x0e), None);
        assert_eq!(register.read(), 0x06);
    }
}
