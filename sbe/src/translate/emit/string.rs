//! String instructions without a repeat prefix.

use super::{Emitted, Emitter, Result, host_memory};
use crate::translate::context::offset;
use iced_x86::code_asm::*;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

impl Emitter {
    /// LODS, STOS, SCAS or MOVS, once, upwards.
    pub(super) fn string(&mut self, raw: &Instruction) -> Result<Emitted> {
        let size = raw.memory_size().size() as u32;
        let step = size as i32;
        let accumulator = match size {
            1 => Register::AL,
            2 => Register::AX,
            _ => Register::EAX,
        };
        let reads_source = raw.op1_kind() == OpKind::MemorySegESI;
        let writes = matches!(raw.op0_kind(), OpKind::MemoryESEDI)
            && !matches!(
                raw.mnemonic(),
                Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd
            );
        if reads_source {
            self.code.mov(r8d, esi)?;
            self.probe(raw, size, false)?;
        }
        if reads_source && writes {
            // Zero-extended loads keep flags and the rest of the scratch register out of it.
            self.access(Register::R9D, size, false)?;
            self.code.mov(dword_ptr(r15 + offset::SCRATCH), r9d)?;
            self.pads(true)?;
        } else if reads_source {
            self.access(accumulator, size, false)?;
        }
        if raw.op0_kind() == OpKind::MemoryESEDI || raw.op1_kind() == OpKind::MemoryESEDI {
            self.code.mov(r8d, edi)?;
            self.probe(raw, size, writes)?;
            if !writes {
                let code = [Code::Cmp_r8_rm8, Code::Cmp_r16_rm16, Code::Cmp_r32_rm32]
                    [size.trailing_zeros() as usize];
                self.code
                    .add_instruction(Instruction::with2(code, accumulator, host_memory())?)?;
            } else if reads_source {
                self.code.mov(r10d, dword_ptr(r15 + offset::SCRATCH))?;
                self.access(Register::R10D, size, true)?;
            } else {
                self.access(accumulator, size, true)?;
            }
            self.code.lea(edi, dword_ptr(rdi + step))?;
        }
        if reads_source {
            self.code.lea(esi, dword_ptr(rsi + step))?;
        }
        Ok(Emitted::Inline)
    }

    /// Moves `size` bytes between the probed memory and `register` or its lower part.
    pub(super) fn access(&mut self, register: Register, size: u32, writes: bool) -> Result<()> {
        let part = match (register, size) {
            (Register::R9D, 1) => Register::R9L,
            (Register::R9D, 2) => Register::R9W,
            (Register::R10D, 1) => Register::R10L,
            (Register::R10D, 2) => Register::R10W,
            (register, _) => register,
        };
        let index = size.trailing_zeros() as usize;
        let instruction = if writes {
            let code = [Code::Mov_rm8_r8, Code::Mov_rm16_r16, Code::Mov_rm32_r32][index];
            Instruction::with2(code, host_memory(), part)?
        } else {
            let code = [Code::Mov_r8_rm8, Code::Mov_r16_rm16, Code::Mov_r32_rm32][index];
            Instruction::with2(code, part, host_memory())?
        };
        self.code.add_instruction(instruction)
    }
}

/// Whether `raw` is a string instruction on its own, with 32-bit addresses.
pub(super) fn is_single_string(raw: &Instruction) -> bool {
    let string = |index| {
        matches!(
            raw.op_kind(index),
            OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::Register
        )
    };
    raw.op_count() == 2
        && string(0)
        && string(1)
        && raw.is_string_instruction()
        && !raw.has_rep_prefix()
        && !raw.has_repne_prefix()
        && !matches!(raw.memory_segment(), Register::FS | Register::GS)
}
