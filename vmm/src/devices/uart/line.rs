//! The format of characters on the line: line control register and divisor.

use serde::{Deserialize, Serialize};

use super::registers::{
    LCR_BREAK, LCR_DLAB, LCR_EPS, LCR_PEN, LCR_STB, LCR_WORD_LENGTH, LSR_BI, LSR_FE, LSR_PE,
};

/// The frequency of the crystal of a PC's port. The divisor and 16 divide it down to the bit rate.
const CRYSTAL_HZ: u64 = 1_843_200;
const CLOCKS_PER_BIT: u64 = 16;
const SECOND: u64 = 1_000_000_000;

/// A line's format, as firmware leaves it: 9600 bits per second, eight bits, no parity, one stop bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The line control register.
    pub control: u8,
    pub divisor: u16,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            control: LCR_WORD_LENGTH,
            divisor: 12,
        }
    }
}

impl Line {
    /// Whether the divisor takes the place of data and interrupt enables.
    pub fn selects_divisor(&self) -> bool {
        self.control & LCR_DLAB != 0
    }

    /// Whether the transmitter's pin is held at zero.
    pub fn is_broken(&self) -> bool {
        self.control & LCR_BREAK != 0
    }

    /// The bits of `data` that a character has.
    pub fn character(&self, data: u8) -> u8 {
        data & (u8::MAX >> (3 - (self.control & LCR_WORD_LENGTH)))
    }

    /// The errors of a character that is a break: all bits are zero, the stop bit too, and the parity bit.
    pub fn break_errors(&self) -> u8 {
        match self.control & (LCR_PEN | LCR_EPS) {
            LCR_PEN => LSR_BI | LSR_FE | LSR_PE,
            _ => LSR_BI | LSR_FE,
        }
    }

    /// The duration of a character in nanoseconds. A divisor of 0 counts as 65,536.
    pub fn character_time(&self) -> u64 {
        let data = 5 + u64::from(self.control & LCR_WORD_LENGTH);
        let parity = u64::from(self.control & LCR_PEN != 0);
        let half_stop_bits = match (self.control & LCR_STB != 0, data) {
            (false, _) => 2,
            (true, 5) => 3,
            (true, _) => 4,
        };
        let half_bits = 2 * (1 + data + parity) + half_stop_bits;
        let divisor = match self.divisor {
            0 => 1 << u16::BITS,
            divisor => u64::from(divisor),
        };
        half_bits * CLOCKS_PER_BIT / 2 * divisor * SECOND / CRYSTAL_HZ
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_lasts_for_all_its_bits() {
        for (control, divisor, nanoseconds) in [
            (0x03, 12, 1_041_666),
            (0x03, 1, 86_805),
            (0x1f, 12, 1_250_000),
            (0x04, 12, 781_250),
            (0x00, 12, 729_166),
            (0x03, 0, 5_688_888_888),
        ] {
            let line = Line { control, divisor };
            assert_eq!(line.character_time(), nanoseconds, "{line:?}");
        }
    }

    #[test]
    fn short_characters_lack_the_upper_bits() {
        let short = |control| Line {
            control,
            divisor: 1,
        };
        assert_eq!(
            [0, 1, 2, 3].map(|control| short(control).character(0xff)),
            [0x1f, 0x3f, 0x7f, 0xff]
        );
    }
}
