//! System instructions (SDM Vol. 3A, 2.8 "System Instruction Summary").

mod control;
mod debug;
mod msr;
mod tables;

pub use control::{clts, invd, invlpg, lmsw, mov_from_cr, mov_to_cr, smsw};
pub use debug::{mov_from_dr, mov_to_dr};
pub use msr::{rdmsr, rdpmc, rdtsc, wrmsr};
pub use tables::{lgdt, lidt, sgdt, sidt};

use super::exec::Exec;
use crate::cpu::Pending;
use crate::cpu::model::Leaf;
use crate::cpu::regs::{EAX, EBX, ECX, EDX};
use crate::decode::Insn;
use crate::fault::Fault;

/// CPUID.
pub fn cpuid(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let code64 = cx.cpu.is_code64();
    let regs = &mut cx.cpu.regs;
    let Leaf { eax, ebx, ecx, edx } = cx.cpu.model.leaf(regs.get(EAX), code64);
    for (register, value) in [(EAX, eax), (EBX, ebx), (ECX, ecx), (EDX, edx)] {
        regs.set(register, value);
    }
    Ok(())
}

/// HLT.
pub fn hlt(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_cpl0()?;
    cx.cpu.pending.set(Pending::HALT);
    Ok(())
}
