//! Memory accesses: effective addresses and table probes.

use super::{Cause, Emitter, PAGE_SHIFT, Result};
use crate::translate::context::{WRITE_TABLE, offset};
use crate::translate::operands::host_address_register;
use iced_x86::code_asm::*;
use iced_x86::{Code, Instruction, MemoryOperand, Register};

impl Emitter {
    /// Leaves the address of the memory operand in R8 + R9 - 1; `false` when it has to be emulated.
    pub(super) fn probe_operand(&mut self, raw: &Instruction, writes: bool) -> Result<bool> {
        let size = raw.memory_size().size() as u32;
        if !matches!(size, 1 | 2 | 4) || !self.is_addressable(raw, writes) {
            return Ok(false);
        }
        self.address(raw)?;
        self.probe(raw, size, writes)?;
        Ok(true)
    }

    /// 32-bit addresses in segments that are flat or checked at run time.
    pub(super) fn is_addressable(&self, raw: &Instruction, writes: bool) -> bool {
        let wide = |register: Register| register == Register::None || register.is_gpr32();
        let registers = (raw.memory_base(), raw.memory_index());
        let absolute = registers == (Register::None, Register::None);
        wide(registers.0)
            && wide(registers.1)
            && (!absolute || raw.memory_displ_size() == 4)
            && !(writes && raw.memory_segment() == Register::CS)
    }

    /// R8D = linear address of the memory operand.
    pub(super) fn address(&mut self, raw: &Instruction) -> Result<()> {
        let segment = match raw.memory_segment() {
            Register::FS => Some((offset::FS_USABLE, offset::FS_BASE)),
            Register::GS => Some((offset::GS_USABLE, offset::GS_BASE)),
            _ => None,
        };
        if let Some((usable, _)) = segment {
            let miss = self.miss(raw, Cause::Refused);
            self.code.mov(r11, rcx)?;
            self.code.mov(rcx, qword_ptr(r15 + usable))?;
            self.code.jrcxz(miss)?;
            self.code.mov(rcx, r11)?;
        }
        self.effective_address(Register::R8D, raw)?;
        if let Some((_, base)) = segment {
            self.code.mov(r9, qword_ptr(r15 + base))?;
            self.code.lea(r8d, dword_ptr(r8 + r9))?;
        }
        Ok(())
    }

    /// `target` (32 bits) = effective address of the memory operand.
    pub(super) fn effective_address(&mut self, target: Register, raw: &Instruction) -> Result<()> {
        let base = host_address_register(raw.memory_base());
        let index = host_address_register(raw.memory_index());
        let displacement = raw.memory_displacement32();
        if base == Register::None && index == Register::None {
            return self.code.add_instruction(Instruction::with2(
                Code::Mov_r32_imm32,
                target,
                displacement,
            )?);
        }
        // 0: none; 1: as short as fits; 8: 32 bits, sign-extended, which an operand without a base always has.
        let size = match (base, displacement) {
            (Register::None, _) => 8,
            (_, 0) => 0,
            _ => 1,
        };
        let memory = MemoryOperand::new(
            base,
            index,
            raw.memory_index_scale(),
            i64::from(displacement as i32),
            size,
            false,
            Register::None,
        );
        self.code
            .add_instruction(Instruction::with2(Code::Lea_r32_m, target, memory)?)
    }

    /// Probes the table for `size` bytes (a power of two up to 16) at R8D; leaves the slot in R9.
    pub(super) fn probe(&mut self, raw: &Instruction, size: u32, writes: bool) -> Result<()> {
        let log = size.trailing_zeros();
        let table = if writes { WRITE_TABLE } else { 0 };
        let mut found = self.code.create_label();
        // What may be misaligned, but 16 bytes: most such instructions fault then, the emulator knows which.
        let chance = matches!(log, 1..=3)
            .then(|| (self.chances[log as usize - 1][usize::from(writes)], found));
        let miss = self.miss(raw, Cause::Probe(chance));
        let code = &mut self.code;
        let source = if log == 0 {
            r8d
        } else {
            code.rorx(r9d, r8d, log)?;
            r9d
        };
        code.mov(r10d, PAGE_SHIFT - log)?;
        code.shrx(r9d, source, r10d)?;
        code.mov(r11, rcx)?;
        code.mov(rcx, qword_ptr(r14 + r9 * 8 + table))?;
        code.jrcxz(miss)?;
        code.mov(r9, rcx)?;
        code.mov(rcx, r11)?;
        code.set_label(&mut found)?;
        code.zero_bytes()
    }
}
