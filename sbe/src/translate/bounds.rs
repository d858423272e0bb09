//! [`Bounds`]: what is known of a number that an instruction of 64-bit code leaves in a register.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// The bounds of a quadword as a signed number, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The least value.
    pub low: i64,
    /// The greatest value.
    pub high: i64,
}

impl Bounds {
    /// The bounds of an unsigned number of so many bits, less than 64.
    const fn unsigned(bits: u32) -> Self {
        Self {
            low: 0,
            high: i64::MAX >> (i64::BITS - 1 - bits),
        }
    }

    /// The bounds of a signed number of so many bits, 64 at most.
    const fn signed(bits: u32) -> Self {
        let high = i64::MAX >> (i64::BITS - bits);
        Self {
            low: -high - 1,
            high,
        }
    }
}

/// The general register, as a whole, of whose new value `instruction` tells bounds, with these.
pub fn of_result(instruction: &Instruction) -> Option<(Register, Bounds)> {
    if instruction.code() == Code::Cdqe {
        return Some((Register::RAX, Bounds::signed(32)));
    }
    if instruction.op_count() == 0 || instruction.op0_kind() != OpKind::Register {
        return None;
    }
    let register = instruction.op0_register();
    let bits = 8 * register.size() as u32;
    if !register.is_gpr32() && !register.is_gpr64() {
        return None;
    }
    let bounds = match instruction.code() {
        // Most of these are addresses, by which no others are bounded.
        Code::Mov_r32_imm32 => return None,
        Code::Movzx_r32_rm8 | Code::Movzx_r64_rm8 => Bounds::unsigned(8),
        Code::Movzx_r32_rm16 | Code::Movzx_r64_rm16 => Bounds::unsigned(16),
        Code::Movsx_r64_rm8 => Bounds::signed(8),
        Code::Movsx_r64_rm16 => Bounds::signed(16),
        Code::Movsxd_r64_rm32 => Bounds::signed(32),
        Code::And_rm32_imm8 | Code::And_rm32_imm32 | Code::And_EAX_imm32 => Bounds {
            low: 0,
            high: (instruction.immediate(1) as u32).into(),
        },
        Code::And_rm64_imm8 | Code::And_rm64_imm32 | Code::And_RAX_imm32 => {
            let most = instruction.immediate(1).cast_signed();
            (most >= 0).then_some(Bounds { low: 0, high: most })?
        }
        Code::Shr_rm32_imm8 | Code::Shr_rm64_imm8 => {
            let count = u32::from(instruction.immediate8()) % bits;
            match count {
                0 if bits == 32 => Bounds::unsigned(32),
                0 => return None,
                count => Bounds::unsigned(bits - count),
            }
        }
        _ if register.is_gpr32() && replaces(instruction) => Bounds::unsigned(32),
        _ => return None,
    };
    Some((register.full_register(), bounds))
}

/// Whether the instruction, whose first operand is a doubleword register, always writes that, and clears the upper half of the
/// quadword (SDM Vol. 1, 3.4.1.1 "General-Purpose Registers in 64-Bit Mode").
fn replaces(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    match instruction.mnemonic() {
        // With one operand it writes EDX and EAX.
        Imul => instruction.op_count() > 1,
        mnemonic => matches!(
            mnemonic,
            Mov | Movsx | Lea | Add | Adc | Sub | Sbb | And | Or | Xor | Inc | Dec | Neg | Not
        ),
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::code_asm::*;
    use iced_x86::{Decoder, DecoderOptions, IcedError};

    use super::*;

    /// The bounds of what the instruction leaves that the assembled bytes are decoded to.
    fn of(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Option<Bounds> {
        let mut a = CodeAssembler::new(64).unwrap();
        program(&mut a).unwrap();
        of_bytes(&a.assemble(0).unwrap())
    }

    fn of_bytes(bytes: &[u8]) -> Option<Bounds> {
        let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        of_result(&instruction).map(|(_, bounds)| bounds)
    }

    #[test]
    fn immediates_of_a_byte_are_sign_extended() {
        // AND ECX, -8 and AND RCX, -8.
        let and = of_bytes(&[0x83, 0xe1, 0xf8]);
        assert_eq!(and.map(|bounds| bounds.high), Some(0xffff_fff8));
        assert_eq!(of_bytes(&[0x48, 0x83, 0xe1, 0xf8]), None);
        let and = of_bytes(&[0x48, 0x83, 0xe1, 0x78]);
        assert_eq!(and.map(|bounds| bounds.high), Some(0x78));
    }

    #[test]
    fn results_have_the_bounds_of_what_they_come_from() {
        assert_eq!(
            of(|a| a.movzx(eax, byte_ptr(rsi))),
            Some(Bounds::unsigned(8))
        );
        assert_eq!(of(|a| a.movsxd(rax, ecx)), Some(Bounds::signed(32)));
        assert_eq!(of(|a| a.cdqe()), Some(Bounds::signed(32)));
        assert_eq!(of(|a| a.shr(rax, 60)), Some(Bounds::unsigned(4)));
        // SHR RAX, 1, not in its short form.
        let half = of_bytes(&[0x48, 0xc1, 0xe8, 1]);
        assert_eq!(half.map(|bounds| bounds.high), Some(i64::MAX));
        let byte = of(|a| a.movsx(rax, byte_ptr(rsi)));
        assert_eq!(
            byte.map(|bounds| (bounds.low, bounds.high)),
            Some((-128, 127))
        );
        assert_eq!(of(|a| a.shr(eax, 32)), Some(Bounds::unsigned(32)));
        assert_eq!(of(|a| a.add(eax, ecx)), Some(Bounds::unsigned(32)));
        let and = of(|a| a.and(r8d, 0x7fff));
        assert_eq!(and, Some(Bounds::unsigned(15)));
        let upper = of(|a| a.and(eax, -16));
        assert_eq!(upper.map(|bounds| bounds.high), Some(0xffff_fff0));
    }

    #[test]
    fn others_have_none() {
        assert_eq!(of(|a| a.and(rax, -16)), None);
        assert_eq!(of(|a| a.shr(rax, 64)), None);
        assert_eq!(of(|a| a.add(rax, rcx)), None);
        assert_eq!(of(|a| a.mov(al, cl)), None);
        assert_eq!(of(|a| a.add(dword_ptr(rax), ecx)), None);
        assert_eq!(of(|a| a.imul(ecx)), None);
        assert_eq!(of(|a| a.bsf(eax, ecx)), None);
        assert_eq!(of(|a| a.shl(eax, cl)), None);
    }
}
