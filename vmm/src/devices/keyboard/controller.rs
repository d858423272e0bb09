//! The controller's registers and commands.

use serde::{Deserialize, Serialize};

/// A keyboard controller, which is also its saved state: every value of it is possible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// The RAM; its first byte is the command byte.
    ram: [u8; RAM],
    output: Option<Output>,
    /// The output buffer as last read.
    last: u8,
    output_port: u8,
    /// Whether the last write was a command.
    commanded: bool,
    /// The meaning of the next byte of data.
    expected: Parameter,
}

/// A byte in the output buffer, and its bits in the status register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Output {
    data: u8,
    source: Source,
    timed_out: bool,
}

/// The device that a byte in the output buffer comes from. The answers to commands come from the keyboard's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    Keyboard,
    Auxiliary,
}

/// The meaning of a byte of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Parameter {
    ForKeyboard,
    ForAuxiliary,
    FromKeyboard,
    FromAuxiliary,
    Ram(u8),
    OutputPort,
}

const RAM: usize = 32;
const COMMAND_BYTE: usize = 0;

/// The command byte: interrupts when the output buffer is full.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
const AUXILIARY_INTERRUPT: u8 = 1 << 1;
/// The command byte: the status register's bit of the same place.
const SYSTEM_FLAG: u8 = 1 << 2;
/// The command byte: the clock lines are held low.
const KEYBOARD_DISABLED: u8 = 1 << 4;
const AUXILIARY_DISABLED: u8 = 1 << 5;
const TRANSLATE: u8 = 1 << 6;

/// The status register.
const OUTPUT_BUFFER_FULL: u8 = 1 << 0;
const COMMAND_WRITTEN: u8 = 1 << 3;
const NOT_INHIBITED: u8 = 1 << 4;
const AUXILIARY_OUTPUT: u8 = 1 << 5;
const TIME_OUT: u8 = 1 << 6;

/// The output port: the processor's reset line, active low, and the gate of address line 20.
const NO_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;
/// The output port: the interrupt lines.
const IRQ_1: u8 = 1 << 4;
const IRQ_12: u8 = 1 << 5;
/// The output port: clock and data lines of both devices, all high.
const IDLE_LINES: u8 = 0b1100_1100;
/// The input port: data lines high, no manufacturing jumper, the keyboard not locked.
const INPUT_PORT: u8 = 0b1010_0011;

const NO_PASSWORD: u8 = 0xf1;
const SELF_TEST_PASSED: u8 = 0x55;
const INTERFACE_TEST_PASSED: u8 = 0x00;
/// The byte that takes the place of a device's answer when there is none.
const RESEND: u8 = 0xfe;

/// A controller as firmware leaves it.
impl Default for Controller {
    fn default() -> Self {
        let mut ram = [0; RAM];
        ram[COMMAND_BYTE] = KEYBOARD_INTERRUPT | SYSTEM_FLAG | AUXILIARY_DISABLED | TRANSLATE;
        Self {
            ram,
            output: None,
            last: 0,
            output_port: NO_RESET | A20 | IDLE_LINES,
            commanded: false,
            expected: Parameter::ForKeyboard,
        }
    }
}

impl Controller {
    /// Reads the status register. The input buffer is never full: whatever is written is taken at once.
    pub fn status(&self) -> u8 {
        let mut status = NOT_INHIBITED | (self.ram[COMMAND_BYTE] & SYSTEM_FLAG);
        if self.commanded {
            status |= COMMAND_WRITTEN;
        }
        if let Some(output) = self.output {
            status |= OUTPUT_BUFFER_FULL;
            if output.source == Source::Auxiliary {
                status |= AUXILIARY_OUTPUT;
            }
            if output.timed_out {
                status |= TIME_OUT;
            }
        }
        status
    }

    /// Reads the output buffer, which empties it. An empty one reads as before.
    pub fn read_data(&mut self) -> u8 {
        if let Some(output) = self.output.take() {
            self.last = output.data;
        }
        self.last
    }

    /// Writes a command. Returns whether it resets the processor.
    pub fn command(&mut self, command: u8) -> bool {
        self.commanded = true;
        self.expected = Parameter::ForKeyboard;
        match command {
            0x20..=0x3f => self.answer(self.ram[usize::from(command) % RAM]),
            0x60..=0x7f => self.expected = Parameter::Ram(command),
            0xa4 => self.answer(NO_PASSWORD),
            0xa7 => self.ram[COMMAND_BYTE] |= AUXILIARY_DISABLED,
            0xa8 => self.ram[COMMAND_BYTE] &= !AUXILIARY_DISABLED,
            0xa9 | 0xab => self.answer(INTERFACE_TEST_PASSED),
            0xaa => self.answer(SELF_TEST_PASSED),
            0xad => self.ram[COMMAND_BYTE] |= KEYBOARD_DISABLED,
            0xae => self.ram[COMMAND_BYTE] &= !KEYBOARD_DISABLED,
            0xc0 => self.answer(INPUT_PORT),
            0xd0 => self.answer(self.output_port()),
            0xd1 => self.expected = Parameter::OutputPort,
            0xd2 => self.expected = Parameter::FromKeyboard,
            0xd3 => self.expected = Parameter::FromAuxiliary,
            0xd4 => self.expected = Parameter::ForAuxiliary,
            0xe0 => self.answer(self.test_inputs()),
            // Pulses the output port's lines 0 to 3 whose bits are zero.
            0xf0..=0xff => return command & NO_RESET == 0,
            _ => {}
        }
        false
    }

    /// Writes a byte of data: the parameter of a command, or a byte for the keyboard. Returns whether it resets the
    /// processor.
    pub fn write_data(&mut self, data: u8) -> bool {
        self.commanded = false;
        match std::mem::replace(&mut self.expected, Parameter::ForKeyboard) {
            Parameter::ForKeyboard => {
                self.ram[COMMAND_BYTE] &= !KEYBOARD_DISABLED;
                self.put(RESEND, Source::Keyboard, true);
            }
            Parameter::ForAuxiliary => {
                self.ram[COMMAND_BYTE] &= !AUXILIARY_DISABLED;
                self.put(RESEND, Source::Auxiliary, true);
            }
            Parameter::FromKeyboard => self.answer(data),
            Parameter::FromAuxiliary => self.put(data, Source::Auxiliary, false),
            Parameter::Ram(at) => self.ram[usize::from(at) % RAM] = data,
            Parameter::OutputPort => {
                self.output_port = data;
                return data & NO_RESET == 0;
            }
        }
        false
    }

    /// Whether the keyboard's interrupt line, IRQ 1, is high.
    pub fn keyboard_interrupt(&self) -> bool {
        self.interrupts(Source::Keyboard, KEYBOARD_INTERRUPT)
    }

    /// Whether the auxiliary device's interrupt line, IRQ 12, is high.
    pub fn auxiliary_interrupt(&self) -> bool {
        self.interrupts(Source::Auxiliary, AUXILIARY_INTERRUPT)
    }

    fn interrupts(&self, source: Source, enable: u8) -> bool {
        self.ram[COMMAND_BYTE] & enable != 0
            && self.output.is_some_and(|output| output.source == source)
    }

    /// The output port: as written, but for the interrupt lines.
    fn output_port(&self) -> u8 {
        let line = |high, bit| if high { bit } else { 0 };
        (self.output_port & !(IRQ_1 | IRQ_12))
            | line(self.keyboard_interrupt(), IRQ_1)
            | line(self.auxiliary_interrupt(), IRQ_12)
    }

    /// The test inputs: bit 0 is the keyboard's clock line, bit 1 the auxiliary device's. Nobody but the controller pulls
    /// them low.
    fn test_inputs(&self) -> u8 {
        let disabled = self.ram[COMMAND_BYTE];
        u8::from(disabled & KEYBOARD_DISABLED == 0)
            | u8::from(disabled & AUXILIARY_DISABLED == 0) << 1
    }

    fn answer(&mut self, data: u8) {
        self.put(data, Source::Keyboard, false);
    }

    /// Fills the output buffer, in which the byte takes the place of one that has not been read.
    fn put(&mut self, data: u8, source: Source, timed_out: bool) {
        self.output = Some(Output {
            data,
            source,
            timed_out,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pulses_of_line_0_reset() {
        let resets: Vec<u8> = (0..=255)
            .filter(|&command| Controller::default().command(command))
            .collect();
        assert_eq!(resets, [0xf0, 0xf2, 0xf4, 0xf6, 0xf8, 0xfa, 0xfc, 0xfe]);
    }
}
