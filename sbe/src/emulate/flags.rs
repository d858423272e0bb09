//! Status flags of results, and the instructions that move flags
//! (SDM Vol. 1, 3.4.3.1 "Status Flags"; Vol. 1, Appendix A "EFLAGS Cross-Reference").

use super::exec::Exec;
use super::word::Word;
use crate::cpu::Pending;
use crate::cpu::eflags::{AC, AF, CF, DF, ID, IF, IOPL, NT, OF, PF, RF, SF, STATUS, TF, VM, ZF};
use crate::cpu::regs::{AH, EAX};
use crate::decode::Insn;
use crate::fault::Fault;

/// Position of AH in EAX.
const AH_SHIFT: u32 = 8;
/// EFLAGS bits that SAHF sets and LAHF reads.
const LOW_STATUS: u32 = SF | ZF | AF | PF | CF;

/// The flags SF, ZF and PF of a result.
#[inline(always)]
pub fn of_result<W: Word>(result: W) -> u32 {
    let value = result.zero_extend();
    let parity = if (value as u8).count_ones().is_multiple_of(2) {
        PF
    } else {
        0
    };
    let zero = if value == 0 { ZF } else { 0 };
    let sign = if value & W::SIGN != 0 { SF } else { 0 };
    parity | zero | sign
}

impl Exec<'_> {
    /// Replaces the status flags in `mask` by those of `values`.
    #[inline(always)]
    pub fn set_status(&mut self, mask: u32, values: u32) {
        self.cpu.eflags = self.cpu.eflags & !mask | values & mask;
    }

    /// CF as 0 or 1.
    #[inline(always)]
    pub fn carry(&self) -> u32 {
        self.cpu.eflags & CF
    }

    /// Evaluates the condition with number `condition` of Jcc, SETcc and CMOVcc
    /// (SDM Vol. 1, Appendix B "EFLAGS Condition Codes").
    #[inline(always)]
    pub fn condition(&self, condition: u8) -> bool {
        let flags = self.cpu.eflags;
        let less = (flags & SF != 0) != (flags & OF != 0);
        let holds = match condition >> 1 {
            0 => flags & OF != 0,
            1 => flags & CF != 0,
            2 => flags & ZF != 0,
            3 => flags & (CF | ZF) != 0,
            4 => flags & SF != 0,
            5 => flags & PF != 0,
            6 => less,
            _ => less || flags & ZF != 0,
        };
        holds != (condition & 1 != 0)
    }

    /// The bits of EFLAGS that POPF may change at the current privilege level
    /// (SDM Vol. 2B, "POPF/POPFD/POPFQ").
    pub fn writable_eflags<W: Word>(&self) -> u32 {
        let mut mask = STATUS | TF | DF | NT | AC | ID;
        if self.cpu.cpl == 0 {
            mask |= IOPL;
        }
        if self.cpu.cpl <= self.cpu.iopl() {
            mask |= IF;
        }
        mask & W::MASK as u32
    }
}

/// Clears CF.
pub fn clc(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.cpu.eflags &= !CF;
    Ok(())
}

/// Sets CF.
pub fn stc(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.cpu.eflags |= CF;
    Ok(())
}

/// Complements CF.
pub fn cmc(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.cpu.eflags ^= CF;
    Ok(())
}

/// Clears DF.
pub fn cld(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.cpu.eflags &= !DF;
    Ok(())
}

/// Sets DF.
pub fn std(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.cpu.eflags |= DF;
    Ok(())
}

/// Clears IF, or #GP(0) when CPL > IOPL.
pub fn cli(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_iopl()?;
    cx.cpu.eflags &= !IF;
    Ok(())
}

/// Sets IF, or #GP(0) when CPL > IOPL. Interrupts stay inhibited for one instruction if IF was clear.
pub fn sti(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_iopl()?;
    if cx.cpu.eflags & IF == 0 {
        cx.cpu.eflags |= IF;
        cx.cpu.pending.set(Pending::SHADOW);
    }
    Ok(())
}

/// Loads SF, ZF, AF, PF and CF from AH.
pub fn sahf(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let ah = cx.cpu.regs.get(EAX) >> AH_SHIFT;
    cx.set_status(LOW_STATUS, ah);
    Ok(())
}

/// Stores the low byte of EFLAGS in AH.
pub fn lahf(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let flags = cx.cpu.eflags as u8;
    cx.cpu.regs.set8(AH, flags);
    Ok(())
}

/// PUSHF: VM and RF are pushed as zero; in virtual-8086 mode IOPL must be 3.
pub fn pushf<W: Word>(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_v86_iopl()?;
    let image = cx.cpu.eflags & !(VM | RF);
    cx.push(W::cut(image.into()))
}

/// POPF: privilege decides over IF and IOPL; RF is cleared, the bits above are kept.
pub fn popf<W: Word>(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_v86_iopl()?;
    let mask = cx.writable_eflags::<W>();
    let image = cx.pop::<W>()?.zero_extend() as u32;
    let kept = cx.cpu.eflags & !mask & !RF;
    cx.set_eflags(kept | image & mask);
    Ok(())
}

impl Exec<'_> {
    /// Checks the privilege of CLI and STI: #GP(0) when CPL > IOPL (CPL is 3 in virtual-8086 mode, 0 in real-address mode).
    fn require_iopl(&self) -> Result<(), Fault> {
        if self.cpu.cpl > self.cpu.iopl() {
            Err(Fault::gp(0))
        } else {
            Ok(())
        }
    }

    /// Checks PUSHF and POPF in virtual-8086 mode: #GP(0) when IOPL < 3.
    pub fn require_v86_iopl(&self) -> Result<(), Fault> {
        if self.cpu.is_v86() && self.cpu.iopl() < 3 {
            Err(Fault::gp(0))
        } else {
            Ok(())
        }
    }

    /// Raises #GP(0) unless CPL is 0.
    pub fn require_cpl0(&self) -> Result<(), Fault> {
        if self.cpu.cpl == 0 {
            Ok(())
        } else {
            Err(Fault::gp(0))
        }
    }
}
