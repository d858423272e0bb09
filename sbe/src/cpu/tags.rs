//! The full x87 tag word, made from the abridged one that FXSAVE keeps (SDM Vol. 1, 8.1.7 "x87 FPU Tag Word").

use super::fpu::FxState;

/// Bytes of an x87 register.
const REGISTER_BYTES: usize = 10;

/// The two bits a register has in the full tag word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Valid = 0,
    Zero = 1,
    Special = 2,
    Empty = 3,
}

impl Tag {
    /// The tag of a register that is not empty.
    fn of(register: [u8; REGISTER_BYTES]) -> Self {
        const EXPONENT: u16 = 0x7fff;
        let significand = u64::from_le_bytes(std::array::from_fn(|index| register[index]));
        let exponent = u16::from_le_bytes([register[8], register[9]]) & EXPONENT;
        let integer_bit = significand >> 63 != 0;
        match exponent {
            0 if significand == 0 => Self::Zero,
            0 | EXPONENT => Self::Special,
            _ if integer_bit => Self::Valid,
            _ => Self::Special,
        }
    }
}

impl FxState {
    /// The full tag word: physical register i has bits 2i and 2i + 1.
    pub fn full_tags(&self) -> u16 {
        (0..8u8).rev().fold(0, |word, physical| {
            let tag = if self.tags() >> physical & 1 == 0 {
                Tag::Empty
            } else {
                Tag::of(self.st(physical.wrapping_sub(self.top()) & 7))
            };
            word << 2 | tag as u16
        })
    }

    /// Sets the tags by a full tag word, of which the processor keeps only which registers are empty.
    pub fn set_full_tags(&mut self, full: u16) {
        self.set_tags((0..8).fold(0, |tags, physical| {
            let empty = full >> (2 * physical) & 3 == Tag::Empty as u16;
            tags | u8::from(!empty) << physical
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_zero_special_and_valid_apart() {
        let register = |significand: u64, exponent: u16| {
            let mut bytes = [0; REGISTER_BYTES];
            bytes[..8].copy_from_slice(&significand.to_le_bytes());
            bytes[8..].copy_from_slice(&exponent.to_le_bytes());
            Tag::of(bytes)
        };
        assert_eq!(register(0, 0x8000), Tag::Zero);
        assert_eq!(register(1, 0), Tag::Special, "denormal");
        assert_eq!(register(1 << 63, 0x3fff), Tag::Valid);
        assert_eq!(register(1, 0x3fff), Tag::Special, "unnormal");
        assert_eq!(register(1 << 63, 0x7fff), Tag::Special, "infinity");
    }

    #[test]
    fn full_tags_are_of_physical_registers() {
        let mut fpu = FxState::default();
        fpu.set_full_tags(0x3fff);
        assert_eq!(fpu.tags(), 0x80);
        fpu.move_top(7);
        fpu.set_st(0, [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
        assert_eq!(fpu.full_tags(), 0x3fff);
        fpu.set_st(0, [0; 10]);
        assert_eq!(fpu.full_tags(), 0x7fff);
    }
}
