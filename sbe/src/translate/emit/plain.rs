//! Instructions that the host executes as they are: integer, x87, MMX and SSE, and LEA.

use super::{Cause, Emitted, Emitter, Result};
use crate::translate::context::offset;
use crate::translate::operands::{memory_operand, rewrite};
use iced_x86::code_asm::*;
use iced_x86::{Code, Instruction, Mnemonic, OpAccess, OpKind, Register};

impl Emitter {
    /// An instruction that the host executes as it is, its operands renamed.
    pub(super) fn copy(&mut self, raw: &Instruction) -> Result<Emitted> {
        let integer =
            |register: Register| register.is_gpr8() || register.is_gpr16() || register.is_gpr32();
        let plain = (0..raw.op_count())
            .all(|index| raw.op_kind(index) != OpKind::Register || integer(raw.op_register(index)));
        let Some(host) = rewrite(raw).filter(|_| plain && raw.code() != Code::Bswap_r16) else {
            return Ok(Emitted::Emulate);
        };
        if let Some(index) = memory_operand(raw) {
            // A bit offset in a register reaches beyond the operand.
            let reaches = matches!(
                raw.mnemonic(),
                Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
            ) && raw.op_kind(1) == OpKind::Register;
            let access = self.info.info(raw).op_access(index);
            let writes = !matches!(access, OpAccess::Read | OpAccess::CondRead);
            if reaches || !self.probe_operand(raw, writes)? {
                return Ok(Emitted::Emulate);
            }
        }
        self.code.add_instruction(host)?;
        Ok(Emitted::Inline)
    }

    /// An x87, MMX or SSE instruction on the host's unit, which the guest's state is loaded into on first use.
    pub(super) fn fpu(&mut self, raw: &Instruction) -> Result<Emitted> {
        let Some(host) = rewrite(raw) else {
            return Ok(Emitted::Emulate);
        };
        let access = memory_operand(raw).map(|index| self.info.info(raw).op_access(index));
        let size = raw.memory_size().size() as u32;
        if access.is_some()
            && !(matches!(size, 1 | 2 | 4 | 8 | 16) && self.is_addressable(raw, true))
        {
            return Ok(Emitted::Emulate);
        }
        if !self.fpu_checked {
            let miss = self.miss(raw, Cause::Fpu);
            self.code.mov(r11, rcx)?;
            self.code.mov(rcx, qword_ptr(r15 + offset::FPU_LIVE))?;
            self.code.jrcxz(miss)?;
            self.code.mov(rcx, r11)?;
            self.fpu_checked = true;
        }
        if let Some(access) = access {
            self.address(raw)?;
            self.probe(
                raw,
                size,
                !matches!(access, OpAccess::Read | OpAccess::CondRead),
            )?;
        }
        self.code.add_instruction(host)?;
        Ok(Emitted::Inline)
    }

    pub(super) fn lea(&mut self, raw: &Instruction) -> Result<Emitted> {
        let target = match raw.op0_register() {
            Register::ESP => Register::R12D,
            register if register.is_gpr32() => register,
            _ => return Ok(Emitted::Emulate),
        };
        if !self.is_addressable(raw, false) {
            return Ok(Emitted::Emulate);
        }
        self.effective_address(target, raw)?;
        Ok(Emitted::Inline)
    }
}
