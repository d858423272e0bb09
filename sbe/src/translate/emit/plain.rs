//! Integer instructions that the host executes as they are, and LEA.

use super::memory::is_addressable;
use super::{Emitted, Emitter, Result, guest};
use crate::translate::asm::*;
use crate::translate::operands::{
    Counter, HostOperand, high_byte_operand, is_high_byte, memory_operand, rewrite,
};
use iced_x86::{Instruction, OpAccess, OpKind, Register};

/// The distance in bits of AH from AL.
const HIGH_BYTE: u8 = 8;

impl Emitter {
    /// Emits an instruction that the host executes as it is, with its operands renamed.
    pub(super) fn copy(&mut self, raw: &Instruction) -> Result<Emitted> {
        let Some(index) = memory_operand(raw) else {
            return self.copy_registers(raw);
        };
        if high_byte_operand(raw).is_some() {
            return self.copy_high_byte(raw, index);
        }
        let writes = self.writes(raw, index);
        let Some(probed) = self.probe_operand(raw, writes) else {
            return Ok(Emitted::Emulate);
        };
        self.encode(raw, Counter::R11, Some(probed.operand()))
    }

    /// Whether operand `index` is written.
    pub(super) fn writes(&mut self, raw: &Instruction, index: u32) -> bool {
        let access = self.info.info(raw).op_access(index);
        !matches!(access, OpAccess::Read | OpAccess::CondRead)
    }

    /// Emits `raw` in its host form; nothing when there is none.
    pub(super) fn encode(
        &mut self,
        raw: &Instruction,
        counter: Counter,
        place: Option<HostOperand>,
    ) -> Result<Emitted> {
        let Some(host) = rewrite(raw, counter, place) else {
            return Ok(Emitted::Emulate);
        };
        self.asm.guest(&host)?;
        Ok(Emitted::Inline)
    }

    /// Emits an instruction of registers only. For AH..BH beside ECX, or CH, guest ECX is moved to ECX.
    fn copy_registers(&mut self, raw: &Instruction) -> Result<Emitted> {
        if self.encode(raw, Counter::R11, None)? == Emitted::Inline {
            return Ok(Emitted::Inline);
        }
        self.with_counter(raw, None)
    }

    /// Emits `raw` with guest ECX in ECX.
    fn with_counter(&mut self, raw: &Instruction, place: Option<HostOperand>) -> Result<Emitted> {
        let Some(host) = rewrite(raw, Counter::Ecx, place) else {
            return Ok(Emitted::Emulate);
        };
        self.asm.mov32(RCX, R11);
        self.asm.guest(&host)?;
        self.asm.mov32(R11, RCX);
        Ok(Emitted::Inline)
    }

    /// Emits an instruction of memory and AH..BH. A high byte that is only read is copied to R9B first; else the operand's address
    /// needs a register without REX prefix, and RCX is the only one.
    fn copy_high_byte(&mut self, raw: &Instruction, memory: u32) -> Result<Emitted> {
        let Some(high) = high_byte_operand(raw) else {
            return Ok(Emitted::Emulate);
        };
        let register = raw.op_register(high);
        if self.writes(raw, high) {
            let writes = self.writes(raw, memory);
            if register == Register::CH {
                return match writes {
                    true => Ok(Emitted::Emulate),
                    false => self.copy_to_ch(raw, memory, high),
                };
            }
            let Some(probed) = self.probe_operand(raw, writes) else {
                return Ok(Emitted::Emulate);
            };
            let probed = self.point(RCX, probed);
            return self.encode(raw, Counter::R11, Some(probed.operand()));
        }
        let writes = self.writes(raw, memory);
        let (Some(probed), Some(whole)) = (
            self.probe_operand(raw, writes),
            guest(register.full_register32()),
        ) else {
            return Ok(Emitted::Emulate);
        };
        debug_assert!(is_high_byte(register));
        self.asm.rorx32(R9, whole, HIGH_BYTE);
        let mut low = *raw;
        low.set_op_register(high, Register::R9L);
        self.encode(&low, Counter::R11, Some(probed.operand()))
    }

    /// Emits an instruction that reads memory and writes CH, operand `high`: as the low byte of guest ECX, rotated there and back.
    fn copy_to_ch(&mut self, raw: &Instruction, memory: u32, high: u32) -> Result<Emitted> {
        let Some(probed) = self.probe_operand(raw, false) else {
            return Ok(Emitted::Emulate);
        };
        self.asm.load8(R9, probed.mem());
        let mut low = *raw;
        low.set_op_kind(memory, OpKind::Register);
        low.set_op_register(memory, Register::R9L);
        low.set_op_register(high, Register::R11L);
        self.asm.rorx32(R11, R11, HIGH_BYTE);
        let emitted = self.encode(&low, Counter::R11, None)?;
        self.asm.rorx32(R11, R11, u32::BITS as u8 - HIGH_BYTE);
        Ok(emitted)
    }

    /// Emits a shift or rotation by CL.
    pub(super) fn copy_with_cl(&mut self, raw: &Instruction) -> Result<Emitted> {
        if memory_operand(raw).is_none() {
            return self.with_counter(raw, None);
        }
        let Some(probed) = self.probe_operand(raw, true) else {
            return Ok(Emitted::Emulate);
        };
        let probed = self.point(R8, probed);
        self.with_counter(raw, Some(probed.operand()))
    }

    /// Emits LEA.
    pub(super) fn lea(&mut self, raw: &Instruction) -> Emitted {
        match guest(raw.op0_register()) {
            Some(target) if is_addressable(raw, false) => {
                self.effective_address(target, raw);
                Emitted::Inline
            }
            _ => Emitted::Emulate,
        }
    }
}
