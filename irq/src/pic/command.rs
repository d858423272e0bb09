//! The command words of an 8259A, decoded (8259A datasheet, Programming the 8259A).
//!
//! The bits for the MCS-80/85 call sequence (ICW1 ADI, ICW4 µPM = 0) and for the pins of buffered mode (ICW4 BUF, M/S)
//! have no effect in a PC and are ignored: vectors are always those of 8086 mode.

use serde::{Deserialize, Serialize};

use bits::{
    ICW1, ICW1_IC4, ICW1_LTIM, ICW1_SNGL, OCW3, OCW3_ESMM, OCW3_P, OCW3_RIS, OCW3_RR, OCW3_SMM,
};

mod bits {
    /// A0 = 0: set in ICW1, clear in OCW2 and OCW3.
    pub const ICW1: u8 = 1 << 4;
    /// ICW1 IC4: ICW4 will follow.
    pub const ICW1_IC4: u8 = 1 << 0;
    /// ICW1 SNGL: there is no cascade, and ICW3 will not follow.
    pub const ICW1_SNGL: u8 = 1 << 1;
    /// ICW1 LTIM: all inputs are level triggered.
    pub const ICW1_LTIM: u8 = 1 << 3;
    /// A0 = 0: set in OCW3, clear in OCW2.
    pub const OCW3: u8 = 1 << 3;
    /// OCW3 RIS: reads return the ISR (1) or the IRR (0).
    pub const OCW3_RIS: u8 = 1 << 0;
    /// OCW3 RR: RIS is valid.
    pub const OCW3_RR: u8 = 1 << 1;
    /// OCW3 P: poll command.
    pub const OCW3_P: u8 = 1 << 2;
    /// OCW3 SMM: special mask mode on (1) or off (0).
    pub const OCW3_SMM: u8 = 1 << 5;
    /// OCW3 ESMM: SMM is valid.
    pub const OCW3_ESMM: u8 = 1 << 6;
}

/// OCW2: the level, bits L2 to L0. ICW3 of a slave: its identity.
const LEVEL_MASK: u8 = 0b111;
/// OCW2: position of bits R, SL and EOI.
const OCW2_COMMAND_SHIFT: u32 = 5;
/// ICW2: bits T7 to T3, the vector without the level.
const ICW2_VECTOR_MASK: u8 = 0b1111_1000;
/// ICW4 AEOI: automatic end of interrupt.
const ICW4_AEOI: u8 = 1 << 1;
/// ICW4 SFNM: special fully nested mode.
const ICW4_SFNM: u8 = 1 << 4;

/// A byte written with A0 = 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Icw1(Icw1),
    Ocw2(Ocw2),
    Ocw3(Ocw3),
}

impl Command {
    pub fn decode(byte: u8) -> Self {
        if byte & ICW1 != 0 {
            Self::Icw1(Icw1::decode(byte))
        } else if byte & OCW3 != 0 {
            Self::Ocw3(Ocw3::decode(byte))
        } else {
            Self::Ocw2(Ocw2::decode(byte))
        }
    }
}

/// Initialization command word 1, which announces the words that follow and says how inputs trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Icw1 {
    pub ic4: bool,
    pub single: bool,
    pub level_triggered: bool,
}

impl Icw1 {
    fn decode(byte: u8) -> Self {
        Self {
            ic4: byte & ICW1_IC4 != 0,
            single: byte & ICW1_SNGL != 0,
            level_triggered: byte & ICW1_LTIM != 0,
        }
    }
}

/// Decodes initialization command word 2, which holds the vector of level 0.
pub fn vector_base(icw2: u8) -> u8 {
    icw2 & ICW2_VECTOR_MASK
}

/// Decodes initialization command word 3 of a slave, which holds its identity on the cascade lines.
pub fn slave_identity(icw3: u8) -> u8 {
    icw3 & LEVEL_MASK
}

/// Initialization command word 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Icw4 {
    pub auto_eoi: bool,
    pub special_fully_nested: bool,
}

impl Icw4 {
    pub fn decode(byte: u8) -> Self {
        Self {
            auto_eoi: byte & ICW4_AEOI != 0,
            special_fully_nested: byte & ICW4_SFNM != 0,
        }
    }
}

/// Operation command word 2: EOI and priority rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ocw2 {
    NonSpecificEoi,
    SpecificEoi(u8),
    RotateOnNonSpecificEoi,
    RotateInAutoEoiSet,
    RotateInAutoEoiClear,
    RotateOnSpecificEoi(u8),
    SetPriority(u8),
    NoOperation,
}

impl Ocw2 {
    fn decode(byte: u8) -> Self {
        let level = byte & LEVEL_MASK;
        match byte >> OCW2_COMMAND_SHIFT {
            0b000 => Self::RotateInAutoEoiClear,
            0b001 => Self::NonSpecificEoi,
            0b010 => Self::NoOperation,
            0b011 => Self::SpecificEoi(level),
            0b100 => Self::RotateInAutoEoiSet,
            0b101 => Self::RotateOnNonSpecificEoi,
            0b110 => Self::SetPriority(level),
            _ => Self::RotateOnSpecificEoi(level),
        }
    }
}

/// The register that a read with A0 = 0 returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatusRead {
    #[default]
    Irr,
    Isr,
}

/// Operation command word 3. A setting that the word leaves unchanged is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ocw3 {
    pub status_read: Option<StatusRead>,
    pub poll: bool,
    pub special_mask: Option<bool>,
}

impl Ocw3 {
    fn decode(byte: u8) -> Self {
        let selected = if byte & OCW3_RIS != 0 {
            StatusRead::Isr
        } else {
            StatusRead::Irr
        };
        Self {
            status_read: (byte & OCW3_RR != 0).then_some(selected),
            poll: byte & OCW3_P != 0,
            special_mask: (byte & OCW3_ESMM != 0).then_some(byte & OCW3_SMM != 0),
        }
    }
}
