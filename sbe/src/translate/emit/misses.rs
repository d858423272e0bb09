//! What happens when a check fails: pads within reach of JRCXZ, pieces out of line.
//!
//! JRCXZ reaches 127 bytes only, and nothing else tests a register without touching flags. So failed checks jump to pads
//! that stand between instructions every hundred bytes or so, or behind code that does not fall through, and from there to
//! their pieces at the end of the fragment.

use super::{Cause, Emitter, Miss, Result};
use crate::translate::context::Reason;
use crate::translate::runtime::leave;
use iced_x86::Instruction;
use iced_x86::code_asm::*;

impl Emitter {
    /// Places the near targets of misses: jumps to their pieces out of line.
    pub(super) fn pads(&mut self, falls_through: bool) -> Result<()> {
        if self.misses.is_empty() {
            return Ok(());
        }
        let mut over = self.code.create_label();
        if falls_through {
            self.code.jmp(over)?;
        }
        for mut miss in std::mem::take(&mut self.misses) {
            let far = self.code.create_label();
            self.code.set_label(&mut miss.near)?;
            self.code.jmp(far)?;
            self.far.push((far, miss));
        }
        if falls_through {
            self.code.set_label(&mut over)?;
            self.code.zero_bytes()?;
        }
        self.distance = 0;
        Ok(())
    }

    /// The piece out of line for a failed check.
    pub(super) fn failed(&mut self, mut label: CodeLabel, miss: Miss) -> Result<()> {
        self.code.set_label(&mut label)?;
        self.code.mov(rcx, r11)?;
        match miss.cause {
            Cause::Refused | Cause::Probe(None) => self.emulate(miss.offset),
            Cause::Probe(Some((chance, back))) => {
                let mut refused = self.code.create_label();
                self.code.call(chance)?;
                self.code.mov(r11, rcx)?;
                self.code.mov(rcx, r9)?;
                self.code.jrcxz(refused)?;
                self.code.mov(rcx, r11)?;
                self.code.jmp(back)?;
                self.code.set_label(&mut refused)?;
                self.code.mov(rcx, r11)?;
                self.emulate(miss.offset)
            }
            Cause::Fpu => {
                self.code.lea(r8d, dword_ptr(r13 + miss.offset as i32))?;
                leave(&mut self.code, Reason::LoadFpu, self.exit)
            }
        }
    }

    pub(super) fn miss(&mut self, raw: &Instruction, cause: Cause) -> CodeLabel {
        let near = self.code.create_label();
        if self.misses.is_empty() {
            self.distance = 0;
        }
        self.misses.push(Miss {
            near,
            offset: raw.ip32(),
            cause,
        });
        near
    }
}
