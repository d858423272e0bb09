//! General registers and their 8- and 16-bit parts (SDM Vol. 1, 3.4.1 "General-Purpose Registers").
//!
//! The register file has room for the sixteen 64-bit registers of a later x86-64 guest; an IA-32 guest uses the first eight, with
//! zero upper halves. One more slot always holds zero: address formation uses it for an absent base or index.

/// Number of EAX in the register file and in instruction encodings.
pub const EAX: u8 = 0;
/// Number of ECX.
pub const ECX: u8 = 1;
/// Number of EDX.
pub const EDX: u8 = 2;
/// Number of EBX.
pub const EBX: u8 = 3;
/// Number of ESP.
pub const ESP: u8 = 4;
/// Number of EBP.
pub const EBP: u8 = 5;
/// Number of ESI.
pub const ESI: u8 = 6;
/// Number of EDI.
pub const EDI: u8 = 7;
/// The slot that always holds zero.
pub const ZERO: u8 = 16;

/// The general registers, and a slot that holds zero.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Registers([u64; 17]);

impl Registers {
    /// The 32-bit register `index` (0..=7), or zero for [`ZERO`].
    #[inline(always)]
    pub fn get(&self, index: u8) -> u32 {
        self.0[usize::from(index)] as u32
    }

    /// Sets the 32-bit register `index` (0..=7); the upper half becomes zero.
    #[inline(always)]
    pub fn set(&mut self, index: u8, value: u32) {
        debug_assert!(index < ZERO);
        self.0[usize::from(index)] = u64::from(value);
    }

    /// The 16-bit register `index` (AX, CX, DX, BX, SP, BP, SI, DI).
    #[inline(always)]
    pub fn get16(&self, index: u8) -> u16 {
        self.get(index) as u16
    }

    /// Sets the low 16 bits of register `index`; the others are kept.
    #[inline(always)]
    pub fn set16(&mut self, index: u8, value: u16) {
        self.set(index, self.get(index) & !0xffff | u32::from(value));
    }

    /// The 8-bit register `index` (AL, CL, DL, BL, AH, CH, DH, BH).
    #[inline(always)]
    pub fn get8(&self, index: u8) -> u8 {
        (self.get(index & 3) >> (u32::from(index & 4) * 2)) as u8
    }

    /// Sets the 8-bit register `index`; the other bits are kept.
    #[inline(always)]
    pub fn set8(&mut self, index: u8, value: u8) {
        let shift = u32::from(index & 4) * 2;
        let kept = self.get(index & 3) & !(0xff << shift);
        self.set(index & 3, kept | u32::from(value) << shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_registers_name_the_low_and_high_bytes_of_the_first_four() {
        let mut regs = Registers::default();
        regs.set(EAX, 0x1122_3344);
        assert_eq!((regs.get8(0), regs.get8(4)), (0x44, 0x33));
        regs.set8(4, 0xaa);
        regs.set8(0, 0xbb);
        assert_eq!(regs.get(EAX), 0x1122_aabb);
        regs.set16(EAX, 0x5566);
        assert_eq!(regs.get(EAX), 0x1122_5566);
    }
}
