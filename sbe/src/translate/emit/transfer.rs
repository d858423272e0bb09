//! Near jumps, calls and returns, and the links between fragments of a page.

use super::{Branch, Emitted, Emitter, Link, PAGE, Result, Way, guest, probed};
use crate::translate::context::{Reason, offset};
use crate::translate::runtime::{leave, poll};
use iced_x86::code_asm::*;
use iced_x86::{Code, ConditionCode, Instruction, OpKind};

impl Emitter {
    /// Near jumps, calls and returns with 32-bit operand size.
    pub(super) fn transfer(&mut self, raw: &Instruction) -> Result<Emitted> {
        match raw.code() {
            Code::Jmp_rel8_32 | Code::Jmp_rel32_32 => {
                self.branch(raw.ip32(), raw.near_branch32(), None)?
            }
            Code::Call_rel32_32 => {
                self.push_return_address(raw)?;
                self.branch(raw.ip32(), raw.near_branch32(), None)?;
            }
            Code::Jmp_rm32 => {
                if !self.target(raw)? {
                    return Ok(Emitted::Emulate);
                }
                self.code.jmp(self.jump)?;
            }
            Code::Call_rm32 => {
                if !self.target(raw)? {
                    return Ok(Emitted::Emulate);
                }
                self.code.mov(dword_ptr(r15 + offset::SCRATCH), r8d)?;
                self.pads(true)?;
                self.push_return_address(raw)?;
                self.code.mov(r8d, dword_ptr(r15 + offset::SCRATCH))?;
                self.code.jmp(self.jump)?;
            }
            Code::Retnd | Code::Retnd_imm16 => {
                let released = if raw.code() == Code::Retnd {
                    0
                } else {
                    raw.immediate16()
                };
                self.top_of_stack(raw)?;
                self.code
                    .lea(r12d, dword_ptr(r12 + 4 + i32::from(released)))?;
                self.code.mov(r8d, r9d)?;
                self.code.jmp(self.jump)?;
            }
            _ => return Ok(Emitted::Emulate),
        }
        Ok(Emitted::Ends)
    }

    /// R8D = target of an indirect jump or call.
    pub(super) fn target(&mut self, raw: &Instruction) -> Result<bool> {
        if raw.op0_kind() == OpKind::Memory {
            if !self.probe_operand(raw, false)? {
                return Ok(false);
            }
            self.code.mov(r8d, probed())?;
            return Ok(true);
        }
        let Some(register) = guest(raw.op0_register()) else {
            return Ok(false);
        };
        self.code.mov(r8d, register)?;
        Ok(true)
    }

    pub(super) fn push_return_address(&mut self, raw: &Instruction) -> Result<()> {
        self.open_slot(raw)?;
        self.code
            .lea(r10d, dword_ptr(r13 + raw.next_ip32() as i32))?;
        self.code.mov(probed(), r10d)?;
        self.code.mov(r12d, r8d)
    }

    /// A direct branch, conditional like `condition` or not, to offset `target` of the page (beyond it: another page).
    pub(super) fn branch(
        &mut self,
        from: u32,
        target: u32,
        condition: Option<&Instruction>,
    ) -> Result<()> {
        let label = self.code.create_label();
        let way = match (target < PAGE, target <= from) {
            (false, _) => Way::Out,
            (true, true) => Way::Backward,
            (true, false) => Way::Forward(self.site(target)),
        };
        match condition {
            Some(raw) => self.conditional_jump(raw.condition_code(), label)?,
            None => self.code.jmp(label)?,
        }
        if let Way::Forward(site) = way {
            self.mark_site(site)?;
        }
        self.links.push(Link { label, target, way });
        Ok(())
    }

    /// Takes the next site number for a branch to `target`.
    pub(super) fn site(&mut self, target: u32) -> u32 {
        let after = self.code.create_label();
        self.branches.push(Branch {
            target: target as u16,
            after,
        });
        self.first_site + self.branches.len() as u32 - 1
    }

    /// The branch just emitted is the one of `site`.
    pub(super) fn mark_site(&mut self, site: u32) -> Result<()> {
        let branch = &mut self.branches[(site - self.first_site) as usize];
        self.code.set_label(&mut branch.after)?;
        self.code.zero_bytes()
    }

    pub(super) fn conditional_jump(
        &mut self,
        condition: ConditionCode,
        label: CodeLabel,
    ) -> Result<()> {
        let code = &mut self.code;
        match condition {
            ConditionCode::o => code.jo(label),
            ConditionCode::no => code.jno(label),
            ConditionCode::b => code.jb(label),
            ConditionCode::ae => code.jae(label),
            ConditionCode::e => code.je(label),
            ConditionCode::ne => code.jne(label),
            ConditionCode::be => code.jbe(label),
            ConditionCode::a => code.ja(label),
            ConditionCode::s => code.js(label),
            ConditionCode::ns => code.jns(label),
            ConditionCode::p => code.jp(label),
            ConditionCode::np => code.jnp(label),
            ConditionCode::l => code.jl(label),
            ConditionCode::ge => code.jge(label),
            ConditionCode::le => code.jle(label),
            ConditionCode::g => code.jg(label),
            ConditionCode::None => code.jmp(label),
        }
    }

    /// The piece out of line that a branch leads to until it is linked, and for good where it polls or leaves the page.
    pub(super) fn link(&mut self, mut link: Link) -> Result<()> {
        self.code.set_label(&mut link.label)?;
        match link.way {
            Way::Out => {
                self.code.lea(r8d, dword_ptr(r13 + link.target as i32))?;
                self.code.jmp(self.jump)
            }
            Way::Forward(site) => self.ask_for_link(site, link.target),
            Way::Backward => self.poll_and_link(link.target),
        }
    }

    pub(super) fn poll_and_link(&mut self, target: u32) -> Result<()> {
        let mut expired = self.code.create_label();
        let mut unlinked = self.code.create_label();
        let site = self.site(target);
        poll(&mut self.code, expired)?;
        self.code.jmp(unlinked)?;
        self.mark_site(site)?;
        self.code.set_label(&mut unlinked)?;
        self.ask_for_link(site, target)?;
        self.code.set_label(&mut expired)?;
        self.code.mov(rcx, r11)?;
        self.code.lea(r8d, dword_ptr(r13 + target as i32))?;
        leave(&mut self.code, Reason::Budget, self.exit)
    }

    pub(super) fn ask_for_link(&mut self, site: u32, target: u32) -> Result<()> {
        self.code.mov(dword_ptr(r15 + offset::SITE), site as i32)?;
        self.code.lea(r8d, dword_ptr(r13 + target as i32))?;
        leave(&mut self.code, Reason::Link, self.exit)
    }
}
