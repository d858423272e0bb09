//! A keyboard controller with nothing behind it: the 8042's reset line and no more.
//!
//! The status register reads as ones except for "input buffer full". So a driver that drains the output buffer before it
//! looks for a controller gives up after its sixteen bytes (Linux: "i8042: No controller found", about a millisecond),
//! and a reset through port 0x64, which first waits for the input buffer to be empty, never waits.

use crate::bus::{
    Device, DeviceContext, DeviceStateError, IoAccess, Stop, decode_state, encode_state,
};

/// The 8042 (Intel UPI-41/42 User's Manual; IBM Personal Computer AT Technical Reference, Keyboard Controller).
#[derive(Clone, Debug, Default)]
pub struct KeyboardController;

/// Status bit 1: the controller has not yet taken the last byte written.
const INPUT_BUFFER_FULL: u8 = 1 << 1;
/// Commands 0xf0 to 0xff pulse the output port's lines 0–3 whose bits are zero; line 0 is the processor's reset.
const PULSE_OUTPUT: u8 = 0xf0;
const PULSE_LINE_RESET: u8 = 1 << 0;
/// The region of port 0x64: status when read, command when written. Region 0 is the data port, 0x60.
const STATUS: usize = 1;

impl KeyboardController {
    /// The status register, port 0x64.
    fn status(&self) -> u8 {
        !INPUT_BUFFER_FULL
    }

    /// Whether `command`, at port 0x64, resets the processor.
    fn resets(command: u8) -> bool {
        command & 0xf0 == PULSE_OUTPUT && command & PULSE_LINE_RESET == 0
    }
}

impl Device for KeyboardController {
    fn read(&mut self, access: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        match access.region {
            STATUS => self.status().into(),
            _ => u64::MAX,
        }
    }

    fn write(&mut self, access: IoAccess, value: u64, context: &mut DeviceContext<'_>) {
        if access.region == STATUS && Self::resets(value as u8) {
            context.stop(Stop::Reset);
        }
    }

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&())
    }

    fn restore(&mut self, state: &[u8], _: &mut DeviceContext<'_>) -> Result<(), DeviceStateError> {
        decode_state(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pulses_of_line_0_reset() {
        let resets: Vec<u8> = (0..=255)
            .filter(|&command| KeyboardController::resets(command))
            .collect();
        assert_eq!(resets, [0xf0, 0xf2, 0xf4, 0xf6, 0xf8, 0xfa, 0xfc, 0xfe]);
    }

    #[test]
    fn a_driver_sees_a_stuck_output_buffer_and_an_empty_input_buffer() {
        let controller = KeyboardController;
        assert_eq!(controller.status() & 0b11, 0b01);
    }
}
