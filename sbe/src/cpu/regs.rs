//! General registers and their 8-, 16- and 32-bit parts (SDM Vol. 1, 3.4.1 "General-Purpose Registers").
//!
//! There are sixteen registers of 64 bits, of which the modes but 64-bit mode name the first eight, and their lower halves. One
//! more slot always holds zero: address formation uses it for an absent base or index.
//!
//! A byte register has a number of its own: that of its register if it is the low byte, and [`HIGH_BYTE`] besides if it is AH, CH,
//! DH or BH.

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
/// Number of R8, the first of the registers that only 64-bit mode has.
pub const R8: u8 = 8;
/// Number of R11, in which SYSCALL saves the flags.
pub const R11: u8 = 11;
/// Number of general registers.
pub const COUNT: u8 = 16;
/// The bit by which the number of AH, CH, DH or BH differs from that of AL, CL, DL or BL.
pub const HIGH_BYTE: u8 = 0x20;
/// Number of AH as a byte register.
pub const AH: u8 = EAX | HIGH_BYTE;
/// The slot that always holds zero.
pub const ZERO: u8 = 16;

/// The general registers, and a slot that holds zero.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Registers([u64; 17]);

impl Registers {
    /// The 64-bit register `index` (0..=15), or zero for [`ZERO`].
    #[inline(always)]
    pub fn get64(&self, index: u8) -> u64 {
        self.0[usize::from(index)]
    }

    /// Sets the 64-bit register `index` (0..=15).
    #[inline(always)]
    pub fn set64(&mut self, index: u8, value: u64) {
        debug_assert!(index < ZERO);
        self.0[usize::from(index)] = value;
    }

    /// The 32-bit register `index` (0..=15), or zero for [`ZERO`].
    #[inline(always)]
    pub fn get(&self, index: u8) -> u32 {
        self.0[usize::from(index)] as u32
    }

    /// Sets the 32-bit register `index` (0..=15); the upper half becomes zero.
    #[inline(always)]
    pub fn set(&mut self, index: u8, value: u32) {
        self.set64(index, u64::from(value));
    }

    /// The 16-bit register `index` (AX, CX, DX, BX, SP, BP, SI, DI, R8W to R15W).
    #[inline(always)]
    pub fn get16(&self, index: u8) -> u16 {
        self.get(index) as u16
    }

    /// Sets the low 16 bits of register `index`; the others are kept.
    #[inline(always)]
    pub fn set16(&mut self, index: u8, value: u16) {
        self.set64(index, self.get64(index) & !0xffff | u64::from(value));
    }

    /// The byte register `index`, numbered as the module's description says.
    #[inline(always)]
    pub fn get8(&self, index: u8) -> u8 {
        (self.get(index & !HIGH_BYTE) >> byte_shift(index)) as u8
    }

    /// Sets the byte register `index`; the other bits are kept.
    #[inline(always)]
    pub fn set8(&mut self, index: u8, value: u8) {
        let shift = byte_shift(index);
        let register = index & !HIGH_BYTE;
        let kept = self.get64(register) & !(0xff << shift);
        self.set64(register, kept | u64::from(value) << shift);
    }
}

/// The position of byte register `index` in its register.
#[inline(always)]
fn byte_shift(index: u8) -> u32 {
    u32::from(index & HIGH_BYTE) / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_registers_name_the_low_and_high_bytes_of_the_first_four() {
        let mut regs = Registers::default();
        regs.set(EAX, 0x1122_3344);
        assert_eq!((regs.get8(EAX), regs.get8(AH)), (0x44, 0x33));
        regs.set8(AH, 0xaa);
        regs.set8(0, 0xbb);
        assert_eq!(regs.get(EAX), 0x1122_aabb);
        regs.set16(EAX, 0x5566);
        assert_eq!(regs.get(EAX), 0x1122_5566);
    }

    #[test]
    fn only_writes_of_doublewords_clear_the_upper_half() {
        let mut regs = Registers::default();
        for register in [ESI, R8, COUNT - 1] {
            regs.set64(register, 0x1122_3344_5566_7788);
            regs.set8(register, 0x99);
            assert_eq!(regs.get64(register), 0x1122_3344_5566_7799);
            regs.set16(register, 0xaaaa);
            assert_eq!(regs.get64(register), 0x1122_3344_5566_aaaa);
            regs.set(register, 0xbbbb_bbbb);
            assert_eq!(regs.get64(register), 0xbbbb_bbbb);
        }
        regs.set64(EBX, 0x1122_3344_5566_7788);
        regs.set8(EBX | HIGH_BYTE, 0x99);
        assert_eq!(regs.get64(EBX), 0x1122_3344_5566_9988);
    }
}
