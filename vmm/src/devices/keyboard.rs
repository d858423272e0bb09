//! A keyboard controller with nothing behind it: the 8042's reset line and no more.
//!
//! The status register reads as ones except for "input buffer full". So a driver that drains the output buffer before it
//! looks for a controller gives up after its sixteen bytes (Linux: "i8042: No controller found", about a millisecond),
//! and a reset through port 64h, which first waits for the input buffer to be empty, never waits.

use super::Reset;

/// The 8042 (Intel UPI-41/42 User's Manual; IBM Personal Computer AT Technical Reference, Keyboard Controller).
#[derive(Clone, Debug, Default)]
pub struct KeyboardController;

/// Status bit 1: the controller has not yet taken the last byte written.
const INPUT_BUFFER_FULL: u8 = 1 << 1;
/// Commands F0h–FFh pulse the output port's lines 0–3 whose bits are zero; line 0 is the processor's reset.
const PULSE_OUTPUT: u8 = 0xf0;
const PULSE_LINE_RESET: u8 = 1 << 0;

impl KeyboardController {
    /// Reads the output buffer, port 60h.
    pub fn read_data(&self) -> u8 {
        0xff
    }

    /// Reads the status register, port 64h.
    pub fn read_status(&self) -> u8 {
        !INPUT_BUFFER_FULL
    }

    /// Writes a command, port 64h.
    pub fn write_command(&mut self, command: u8) -> Option<Reset> {
        (command & 0xf0 == PULSE_OUTPUT && command & PULSE_LINE_RESET == 0).then_some(Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pulses_of_line_0_reset() {
        let mut controller = KeyboardController;
        let resets: Vec<u8> = (0..=255)
            .filter(|&command| controller.write_command(command) == Some(Reset))
            .collect();
        assert_eq!(resets, [0xf0, 0xf2, 0xf4, 0xf6, 0xf8, 0xfa, 0xfc, 0xfe]);
    }

    #[test]
    fn a_driver_sees_a_stuck_output_buffer_and_an_empty_input_buffer() {
        let controller = KeyboardController;
        assert_eq!(controller.read_status() & 0b11, 0b01);
    }
}
