//! The control words of an 8254, decoded (8254 datasheet, Control Word Format, Counter Latch Command, Read-Back
//! Command).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Channel;

/// Position of SC1 and SC0, which select a counter or the read-back command.
const SELECT_SHIFT: u32 = 6;
/// Position of RW1 and RW0: the access to the count, or the counter latch command.
const ACCESS_SHIFT: u32 = 4;
const ACCESS_MASK: u8 = 0b11;
/// Position of M2 to M0, the mode.
const MODE_SHIFT: u32 = 1;
const MODE_MASK: u8 = 0b111;
/// BCD: the count has four decades.
const BCD: u8 = 1 << 0;
/// The bits of a control word that the status byte shows again.
const FORMAT_MASK: u8 = 0b11_1111;
/// Read-back: the count is latched if this bit is 0.
const READ_BACK_NO_COUNT: u8 = 1 << 5;
/// Read-back: the status is latched if this bit is 0.
const READ_BACK_NO_STATUS: u8 = 1 << 4;
/// Read-back: position of the bit of counter 0; those of counters 1 and 2 follow.
const READ_BACK_COUNTER_SHIFT: u32 = 1;

/// A byte written to port 0x43.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlWord {
    Counter(Channel, CounterCommand),
    ReadBack(ReadBack),
}

impl ControlWord {
    pub fn decode(byte: u8) -> Self {
        let channel = match byte >> SELECT_SHIFT {
            0 => Channel::Timer,
            1 => Channel::Refresh,
            2 => Channel::Speaker,
            _ => return Self::ReadBack(ReadBack(byte)),
        };
        let command = Format::decode(byte).map_or(CounterCommand::Latch, CounterCommand::Program);
        Self::Counter(channel, command)
    }
}

/// A control word for one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterCommand {
    Latch,
    Program(Format),
}

/// The read-back command, which latches the count, the status or both of several counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBack(u8);

impl ReadBack {
    pub fn selects(self, channel: Channel) -> bool {
        self.0 >> READ_BACK_COUNTER_SHIFT & (1 << channel as u8) != 0
    }

    pub fn count(self) -> bool {
        self.0 & READ_BACK_NO_COUNT == 0
    }

    pub fn status(self) -> bool {
        self.0 & READ_BACK_NO_STATUS == 0
    }
}

/// The format of a counter, which a control word sets: access, mode and radix, with the bits as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Format {
    pub access: Access,
    pub mode: Mode,
    pub radix: Radix,
    bits: u8,
}

impl Format {
    /// The format that a counter shows before it is programmed: mode 0, binary, both bytes.
    pub const POWER_ON: Self = Self {
        access: Access::LowThenHigh,
        mode: Mode::InterruptOnTerminalCount,
        radix: Radix::Binary,
        bits: 0b11_0000,
    };

    /// Decodes a control word, or returns `None` if RW1 and RW0 say that it is a counter latch command.
    fn decode(byte: u8) -> Option<Self> {
        Some(Self {
            access: Access::decode(byte >> ACCESS_SHIFT & ACCESS_MASK)?,
            mode: Mode::decode(byte >> MODE_SHIFT & MODE_MASK),
            radix: if byte & BCD != 0 {
                Radix::Decimal
            } else {
                Radix::Binary
            },
            bits: byte & FORMAT_MASK,
        })
    }

    /// Returns bits 5 to 0 of the status byte, "exactly as written in the last Mode Control Word".
    pub fn status_bits(self) -> u8 {
        self.bits
    }
}

/// The error of decoding a saved format whose access bits are those of the counter latch command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("8254: {0:#04x} programs no counter")]
pub struct NoFormat(u8);

impl TryFrom<u8> for Format {
    type Error = NoFormat;

    fn try_from(bits: u8) -> Result<Self, NoFormat> {
        Self::decode(bits).ok_or(NoFormat(bits))
    }
}

impl From<Format> for u8 {
    fn from(format: Format) -> Self {
        format.bits
    }
}

/// The bytes of a count that are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Low,
    High,
    LowThenHigh,
}

impl Access {
    fn decode(rw: u8) -> Option<Self> {
        match rw {
            0b00 => None,
            0b01 => Some(Self::Low),
            0b10 => Some(Self::High),
            _ => Some(Self::LowThenHigh),
        }
    }
}

/// The counter modes 0 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    InterruptOnTerminalCount,
    HardwareRetriggerableOneShot,
    RateGenerator,
    SquareWave,
    SoftwareTriggeredStrobe,
    HardwareTriggeredStrobe,
}

impl Mode {
    /// Decodes M2 to M0. M2 does not matter for modes 2 and 3.
    fn decode(bits: u8) -> Self {
        match bits {
            0b000 => Self::InterruptOnTerminalCount,
            0b001 => Self::HardwareRetriggerableOneShot,
            0b010 | 0b110 => Self::RateGenerator,
            0b011 | 0b111 => Self::SquareWave,
            0b100 => Self::SoftwareTriggeredStrobe,
            _ => Self::HardwareTriggeredStrobe,
        }
    }
}

/// The number system of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Radix {
    /// 16 bits.
    Binary,
    /// Four decimal digits, four bits each.
    Decimal,
}

impl Radix {
    /// The number of values that a counter can show, 65,536 or 10,000. It is also the largest count, written as 0.
    pub fn modulus(self) -> u64 {
        match self {
            Self::Binary => 0x1_0000,
            Self::Decimal => 10_000,
        }
    }

    /// Decodes a written count, 1 to modulus. The datasheet does not define a decimal digit above 9; here it has the
    /// weight of its place, and the count is taken modulo 10,000.
    pub fn count(self, written: u16) -> u64 {
        let value = match self {
            Self::Binary => u64::from(written),
            Self::Decimal => {
                (0..4).rev().fold(0, |value, digit| {
                    value * 10 + u64::from(written >> (4 * digit) & 0xf)
                }) % self.modulus()
            }
        };
        if value == 0 { self.modulus() } else { value }
    }

    /// Encodes `value`, which is below the modulus, as the 16 bits that a read shows.
    pub fn encode(self, value: u64) -> u16 {
        let bits = match self {
            Self::Binary => value,
            Self::Decimal => (0..4).fold(0, |bits, digit| {
                bits | (value / 10_u64.pow(digit) % 10) << (4 * digit)
            }),
        };
        u16::try_from(bits).expect("a counter's value is below its modulus, which fits 16 bits")
    }
}
